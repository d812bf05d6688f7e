"""What became of the messages that a sweep sent: ``AgentGroupResult``."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from celery import Celery
from celery.app import app_or_default
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.states import PENDING

from celery_agents import waiting
from celery_agents.backends import backend_of, is_old_news, kind_of, pause, read
from celery_agents.messages import Outcome, ProgressReport, TaskCompletionResult, TaskError, TaskOutcome
from celery_agents.results import AgentResult, cancel
from celery_agents.sizes import USUAL
from celery_agents.snapshots import ErrorKey, Snapshot, snapshot_of
from celery_agents.status import Status
from celery_agents.waiting import LONGEST_PAUSE, Deadline

#: A look at a big group may take a while: at least so many times that long is then waited, so that waiting stays cheap.
PAUSE_PER_LOOK = 4
#: Ids in one revoke command: it is broadcast to every worker.
REVOKE_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """How a group of messages stood at one moment."""

    messages: Counter[Status] = field(default_factory=Counter)  #: how many messages have which status
    outcomes: Counter[Outcome] = field(default_factory=Counter)  #: how many agent tasks have which outcome
    progress: ProgressReport = field(default_factory=ProgressReport)  #: the sum over the messages

    @property
    def status(self) -> Status:
        """The status of the group; one without messages SUCCEEDED, for there was nothing to do."""
        return _status_of_all(frozenset(+self.messages))

    @property
    def is_final(self) -> bool:
        """Whether every message has ended."""
        return all(status.is_final for status in +self.messages)

    def as_dict(self) -> dict[str, Any]:
        """This summary as a JSON object."""
        return {
            "status": self.status.value,
            "progress": self.progress.model_dump(mode="json"),
            "messages": {status.value: number for status, number in sorted((+self.messages).items())},
            "counts": {outcome.value: number for outcome, number in sorted((+self.outcomes).items())},
        }


def _status_of_all(statuses: frozenset[Status]) -> Status:
    open_ones = frozenset(status for status in statuses if not status.is_final)
    if len(statuses) == 1:
        return next(iter(statuses))
    if Status.UNKNOWN in open_ones and len(open_ones) == 1:
        return Status.UNKNOWN
    if open_ones:
        return Status.RETRYING if open_ones == {Status.RETRYING} else Status.RUNNING
    if statuses & {Status.SUCCEEDED, Status.PARTIAL}:
        return Status.PARTIAL
    return Status.FAILED if statuses else Status.SUCCEEDED


@dataclass(slots=True)
class _Tally:
    """A sum over snapshots; added to one by one, of which there may be a million."""

    messages: Counter[Status] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    done: int = 0
    failed: int = 0
    total: int = 0

    def add(self, snapshot: Snapshot) -> None:
        self.messages[snapshot.status] += 1
        if snapshot.completion is not None:
            self.outcomes.update(snapshot.counts)
        if snapshot.progress is not None:
            self.done += snapshot.progress.done
            self.failed += snapshot.progress.failed
            self.total += snapshot.progress.total

    def summary(self, more: _Tally) -> GroupSummary:
        progress = ProgressReport(
            done=self.done + more.done, failed=self.failed + more.failed, total=self.total + more.total
        )
        return GroupSummary(self.messages + more.messages, self.outcomes + more.outcomes, progress)


class AgentGroupResult:
    """What became of the messages that a sweep sent.

    Many results are read in one round trip, see ``backends``, and only those of messages that had not ended when they
    were last looked at. What is kept here of a message that has ended are numbers: ``outcomes`` and
    ``errors`` read it again from the backend, chunk by chunk, so that a group of any size takes little memory. Where a
    backend gives each result only once (RPC), *keep* asks for it, or ``get()`` has, results are kept whole.

    Args:
        results: One for each message.
        app: The app whose result backend is asked; by default the current one.
        keep: Keep every outcome of what has ended in memory; nothing is then read twice.
    """

    def __init__(
        self, results: Iterable[AgentResult] = (), app: Celery | None = None, *, keep: bool = False
    ) -> None:
        self.app = app_or_default(app)
        self._keep = keep
        self._totals: dict[str, int | None] = {}
        self._largest = 1  # how many agent tasks the largest message carries, as far as that is known
        # Those that have not ended, as they were last seen; nothing of those that were only sent: there may be many.
        self._open: dict[str, Snapshot | None] = {}
        self._kept: dict[str, Snapshot] = {}
        self._ended = _Tally()
        for result in results:
            self._totals[result.id] = result.total
            self._largest = max(self._largest, result.total or USUAL)
            self._open[result.id] = None
            if result.latest is not None and result.latest.is_final:
                self._note(result.latest, keep=True)

    def __len__(self) -> int:
        return len(self._totals)

    def __iter__(self) -> Iterator[AgentResult]:
        for message_id, total in self._totals.items():
            result = AgentResult(message_id, self.app, total=total)
            result.latest = self._kept.get(message_id) or self._open.get(message_id)
            yield result

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} messages, {len(self._open)} not known to have ended>"

    @property
    def ids(self) -> list[str]:
        """The messages' Celery ids, in the order in which they were sent."""
        return list(self._totals)

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield a snapshot of every message, in order; each is read when its turn comes, many in one round trip.

        Raises:
            SetupError: There is no result backend, or it cannot be reached.
        """
        return self._read(list(self._totals))

    def _read(self, ids: list[str]) -> Iterator[Snapshot]:
        backend = backend_of(self.app)
        keep = self._keep or kind_of(backend).reads_once
        kept = dict(self._kept)
        stored = read(backend, (each for each in ids if each not in kept), size=self._largest)
        for message_id in ids:
            yield kept.get(message_id) or self._note(self._fresh(message_id, next(stored)), keep=keep)

    def _fresh(self, message_id: str, stored: Any) -> Snapshot:
        before = self._open.get(message_id)
        if before is not None and is_old_news(backend_of(self.app), stored):
            return before
        seen = before.progress if before else None
        return snapshot_of(message_id, stored, total=self._totals[message_id], seen=seen)

    def _note(self, snapshot: Snapshot, *, keep: bool) -> Snapshot:
        if snapshot.id not in self._open:
            return snapshot
        if not snapshot.is_final:
            if snapshot.state != PENDING or self._open[snapshot.id] is not None:
                self._open[snapshot.id] = snapshot
            return snapshot
        del self._open[snapshot.id]
        self._ended.add(snapshot)
        if keep:
            self._kept[snapshot.id] = snapshot
        return snapshot

    def summary(self) -> GroupSummary:
        """Return how the group stands, asking only for messages that have not ended.

        Raises:
            SetupError: There is no result backend, or it cannot be reached.
        """
        still_open = _Tally()
        for snapshot in self._read(list(self._open)):
            if not snapshot.is_final:
                still_open.add(snapshot)
        return self._ended.summary(still_open)

    @property
    def status(self) -> Status:
        """The status of the group: RUNNING while any message is, PARTIAL where some failed and some did not."""
        return self.summary().status

    @property
    def progress(self) -> ProgressReport:
        """The sum of the messages' progress."""
        return self.summary().progress

    @property
    def counts(self) -> Counter[Outcome]:
        """How many agent tasks have which outcome, of those decided in messages that ended or are RETRYING."""
        return self.summary().outcomes

    @property
    def outcomes(self) -> Iterator[TaskOutcome]:
        """The outcomes that are decided, message by message; nothing for messages that have none.

        Compare with ``ready()`` before taking them for all, and with ``errors`` for messages that died without.
        """
        return (
            outcome
            for snapshot in self.snapshots()
            if snapshot.completion is not None
            for outcome in snapshot.outcomes
        )

    @property
    def errors(self) -> Iterator[tuple[ErrorKey, TaskError]]:
        """Pairs of agent task UUID and why it FAILED, see ``Snapshot.errors``; ``dict(group.errors)`` is a dict."""
        return (pair for snapshot in self.snapshots() for pair in snapshot.errors.items())

    def ready(self) -> bool:
        """Return whether every message has ended."""
        return self.summary().is_final

    def wait(
        self,
        timeout: float | None = None,
        *,
        on_progress: Callable[[GroupSummary], object] | None = None,
        interval: float = LONGEST_PAUSE,
    ) -> Status:
        """Wait until every message has ended, or for *timeout* seconds; return the group's status then.

        Args:
            timeout: Seconds to wait; None for as long as it takes.
            on_progress: Called with a summary after each look, also the last.
            interval: Seconds between two looks at most; big groups are looked at less often, small ones more at first.
        """
        deadline = Deadline(timeout)
        pauses = waiting.pauses(interval)
        while True:
            started = time.monotonic()
            summary = self.summary()
            if on_progress is not None:
                on_progress(summary)
            if summary.is_final or deadline.is_over():
                return summary.status
            at_least = PAUSE_PER_LOOK * (time.monotonic() - started)
            pause(
                self.app,
                next(reversed(self._open)),  # sent last, it most likely ends last: that is noticed at once
                told=deadline.at_most(max(interval, at_least)),
                untold=deadline.at_most(max(next(pauses), at_least)),
            )

    def get(self, timeout: float | None = None) -> list[TaskCompletionResult]:
        """Wait until every message has ended and return all completion results, in order, in memory.

        They stay in memory with the group, so that nothing is read twice.

        Raises:
            celery.exceptions.TimeoutError: Not all have ended in time.
            AgentTaskError: A message failed: the first one's; or what Celery stored for it, see ``AgentResult.get``.
        """
        self._keep = True
        status = self.wait(timeout)
        if self._open:
            raise ResultTimeoutError(
                f"{len(self._open)} of {len(self)} messages have not ended after {timeout} s ({status})."
            )
        return [snapshot.result for snapshot in self.snapshots()]

    def revoke(self, *, terminate: bool = False, signal: str = "SIGTERM") -> None:
        """Cancel those messages that are not known to have ended, see ``AgentResult.revoke``."""
        ids = list(self._open)
        for start in range(0, len(ids), REVOKE_CHUNK):
            cancel(self.app, ids[start : start + REVOKE_CHUNK], terminate=terminate, signal=signal)

    def as_dict(self) -> dict[str, Any]:
        """How the group stands, and its ids, as a JSON object."""
        return {**self.summary().as_dict(), "ids": self.ids}

    def to_json(self) -> str:
        """Return what ``from_json`` needs to ask for these messages in another process."""
        return json.dumps({"messages": list(self._totals.items())}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, app: Celery | None = None, *, keep: bool = False) -> Self:
        """Rebuild a group from the text that ``to_json`` gave."""
        messages = json.loads(text)["messages"]
        return cls(
            (AgentResult(message_id, app, total=total) for message_id, total in messages), app, keep=keep
        )
