"""The demo's child processes: each under a guard, with a log, and gone when the demo is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

#: The checkout: where ``celeryconfig`` and ``examples`` are importable from.
ROOT = Path(__file__).parents[2]
GUARD = Path(__file__).with_name("guard.py")

#: Seconds between two looks at a condition that is waited for.
LOOK_EVERY = 0.05


class DemoError(Exception):
    """Raised when the demo cannot go on, with a sentence that says why."""


@dataclass(frozen=True)
class Child:
    """One child process under its guard."""

    name: str
    guard: subprocess.Popen[bytes]
    lifeline: int
    """Writing end of the pipe that the guard listens to."""
    log: Path
    output: Path

    @property
    def code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self.guard.poll()

    def ready(self) -> dict[str, Any] | None:
        """The line of JSON with which a server says that it is up, or None before."""
        line, newline, _ = self.output.read_text().partition("\n")
        return json.loads(line) if newline else None

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") or self.output.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """Have it stopped, and wait until nothing is left of it."""
        with suppress(OSError):  # closed already
            os.close(self.lifeline)
        self.guard.wait()


class Processes:
    """Starts child processes; leaving the context stops them, the last started first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self.environment = _clean_environment()
        self.children: list[Child] = []

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        for old in (*self._logs.glob("*.log"), *self._logs.glob("*.out")):
            old.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Producers and workers first, what they talk to last: each can say goodbye.
        for child in reversed(self.children):
            child.stop()

    def start(self, name: str, *command: str) -> Child:
        """Start a command of this Python's environment under a guard."""
        log, output = self._logs / f"{name}.log", self._logs / f"{name}.out"
        listening, lifeline = os.pipe()  # not inherited by other children: only this process keeps it open
        try:
            with log.open("wb") as errors, output.open("wb") as out:
                guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(GUARD), str(listening), sys.executable, *command],
                    cwd=ROOT,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    pass_fds=[listening],
                    start_new_session=True,
                )
        finally:
            os.close(listening)
        child = Child(name, guard, lifeline, log, output)
        self.children.append(child)
        return child

    def run(self, name: str, *command: str, meanwhile: Callable[[], object] = lambda: None) -> str:
        """Run a command to its end and return what it printed; *meanwhile* is called now and then.

        Raises:
            DemoError: It failed.
        """
        child = self.start(name, *command)
        while child.code is None:
            meanwhile()
            time.sleep(LOOK_EVERY)
        self.children.remove(child)
        child.stop()
        if child.code:
            raise DemoError(f"{name} failed with exit code {child.code}:\n{child.tail()}")
        return child.output.read_text()

    def wait_for(self, what: str, condition: Callable[[], T | None], timeout: float = 30.0) -> T:
        """Return what *condition* gives as soon as it gives something.

        Raises:
            DemoError: A child ended meanwhile, or it took longer than *timeout* seconds.
        """
        latest = time.monotonic() + timeout
        while not (value := condition()):
            self.check()
            if time.monotonic() > latest:
                raise DemoError(f"{what}: nothing after {timeout:.0f} seconds.\n{self.tails()}")
            time.sleep(LOOK_EVERY)
        return value

    def tails(self) -> str:
        """Return the end of every child's log."""
        return "\n".join(f"--- {child.log}\n{child.tail()}" for child in self.children)

    def check(self) -> None:
        """Raise DemoError if a child that should be running has ended."""
        for child in self.children:
            if child.code is not None:
                raise DemoError(
                    f"{child.name} ended with exit code {child.code}, see {child.log}:\n{child.tail()}"
                )


def _clean_environment() -> dict[str, str]:
    """This process's environment without what would lead children to a real account, broker or proxy."""
    kept: Mapping[str, str] = {
        name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "ENCORD_"))
    }
    proxied = [hosts for name in ("NO_PROXY", "no_proxy") if (hosts := os.environ.get(name))]
    direct = ",".join([*proxied, "127.0.0.1", "localhost"])
    return {**kept, "NO_PROXY": direct, "no_proxy": direct, "PYTHONUNBUFFERED": "1"}


def celery(*arguments: str) -> Sequence[str]:
    """A Celery command line for the demo's app, as arguments for Python."""
    return ("-m", "celery", "-A", "examples.demo_app", *arguments)
