"""What a check found, and running several checks at once, each within its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  #: worth knowing
    WARNING = "warning"  #: works, but not as it should, or not now
    FAILED = "failed"  #: agents cannot work


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a check."""

    subject: str
    verdict: Verdict
    text: str
    advice: str | None = None  #: what to do about it


def ok(subject: str, text: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(subject, Verdict.OK, text)


def note(subject: str, text: str, advice: str | None = None) -> Finding:
    """Return a finding that is only worth knowing."""
    return Finding(subject, Verdict.NOTE, text, advice)


def warning(subject: str, text: str, advice: str | None = None) -> Finding:
    """Return a finding that should be looked at."""
    return Finding(subject, Verdict.WARNING, text, advice)


def failed(subject: str, text: str, advice: str | None = None) -> Finding:
    """Return a finding that keeps agents from working."""
    return Finding(subject, Verdict.FAILED, text, advice)


@dataclass(frozen=True, slots=True)
class Section:
    """Findings that belong together: one thing is looked at only if what it needs was found."""

    title: str
    look: Callable[[], Iterable[Finding]]
    describe: Callable[[BaseException], str]  #: an error of ``look`` in one sentence


def run(sections: Sequence[Section], seconds: float) -> Iterator[tuple[Section, list[Finding]]]:
    """Look at all *sections* at once and yield each with what it found, in their order.

    A section that takes longer than *seconds* ends with a finding that says so, after what it found until then; its
    thread dies with the process. One that raises ends with the error as a finding: the others are not touched.
    """
    deadline = time.monotonic() + seconds
    looks = [_Look(section) for section in sections]
    for look in looks:
        look.start()
    for look in looks:
        look.join(max(deadline - time.monotonic(), 0))
        found = list(look.findings)
        if look.is_alive():
            found.append(
                failed(look.section.title.lower(), f"no answer within {seconds:g} s", "see --timeout")
            )
        yield look.section, found


class _Look(threading.Thread):
    def __init__(self, section: Section) -> None:
        super().__init__(daemon=True)
        self.section = section
        self.findings: list[Finding] = []

    def run(self) -> None:
        try:
            for finding in self.section.look():
                self.findings.append(finding)
        except Exception as error:  # noqa: BLE001 - one section must not cost the others
            self.findings.append(failed(self.section.title.lower(), self.section.describe(error)))
