"""Overlap the windows of a batch: while the agents of one run, the next are read and those before are committed.

Agents stay where they are called from. What waits for Encord is done by a few threads, within bounds on how much is
read and not used yet, and on how much is answered and not committed yet. Each agent task is in one step at a time, and
a step notes on the agent tasks whatever it finds out, so nothing but the order of things is decided here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from celery_agents.work import Work

#: Windows that are read, or being read, before it is their turn.
READ_AHEAD = 3
#: Bytes, as received, that are read and not used yet: with more in a window, fewer windows are read ahead, but one.
BYTES_AHEAD = 64 * 1024**2
#: Seconds before a window is needed that its reading begins. What is read earlier is older when its agents see it.
LEAD_SECONDS = 5.0
#: Commits that are under way while agents go on.
COMMITS_AT_ONCE = 3

Window: TypeAlias = Sequence[Work]
Result = TypeVar("Result")


class Pipeline:
    """The windows of one batch in turn, each read; a context manager that ends when all commits are through.

    Args:
        windows: What is to be worked through.
        read: Finds out all that the agents of a window need; returns how many bytes that took.
        overlaps: Whether to use threads. Without them each step is done when it is asked for.
        clock: Seconds.
    """

    def __init__(
        self,
        windows: Sequence[Window],
        read: Callable[[Window], int],
        *,
        overlaps: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._clock = clock
        self._overlaps = overlaps
        self._threads = ThreadPoolExecutor(READ_AHEAD + COMMITS_AT_ONCE, "agents-io") if overlaps else _Here()
        self._waiting = deque(windows)
        self._ahead: deque[tuple[Window, Future[int]]] = deque()
        self._commits: deque[tuple[int, Future[None]]] = deque()
        self.uncommitted = 0  #: agent tasks in commits that were not waited for
        self._most_bytes = 0  #: of a window so far
        self._most_ahead = READ_AHEAD  #: windows
        self._handed_out = 0  #: agent tasks
        self._began_at: float | None = None  #: when the first window was handed out
        self._waited = 0.0  #: for windows since then

    def __enter__(self) -> Self:
        return self

    def __iter__(self) -> Iterator[Window]:
        while self._ahead or self._waiting:
            if not self._ahead:
                self._begin_reading()
            window = self._next_read()
            self._handed_out += len(window)
            yield window

    def _next_read(self) -> Window:
        asked_at = self._clock()
        window, reading = self._ahead[0]
        self._note_bytes(_result(reading))
        self._ahead.popleft()
        if self._began_at is None:
            self._began_at = self._clock()
        else:
            self._waited += self._clock() - asked_at
        return window

    def keep_ahead(self, through: int) -> None:
        """Begin to read what is needed soon, now that so many agent tasks of those handed out are through."""
        if not (self._waiting and self._overlaps) or len(self._ahead) >= self._most_ahead:
            return
        left = self._handed_out - through + sum(len(window) for window, _ in self._ahead)
        soon = LEAD_SECONDS * self._pace(through)
        while self._waiting and left < soon and len(self._ahead) < self._most_ahead:
            left += len(self._waiting[0])
            self._begin_reading()

    def _pace(self, through: int) -> float:
        """Return how many agent tasks get through in a second, as far as can be told."""
        began_at = self._clock() if self._began_at is None else self._began_at
        return through / max(self._clock() - began_at - self._waited, 1e-6)

    def _note_bytes(self, received: int) -> None:
        self._most_bytes = max(self._most_bytes, received)
        self._most_ahead = max(1, min(READ_AHEAD, BYTES_AHEAD // max(self._most_bytes, 1)))

    def _begin_reading(self) -> None:
        window = self._waiting.popleft()
        self._ahead.append((window, self._begin(self._read, window)))

    def commit(self, commit: Callable[[], None], number: int) -> None:
        """Have *commit* called for so many agent tasks; where too many are under way, when one of those is through."""
        while len(self._commits) >= COMMITS_AT_ONCE:
            self.await_commit()
        self._commits.append((number, self._begin(commit)))
        self.uncommitted += number

    def await_commit(self) -> None:
        """Wait for the commit that has been under way for longest."""
        number, committing = self._commits.popleft()
        self.uncommitted -= number
        _result(committing)

    def _begin(self, step: Callable[..., Result], *args: Any) -> Future[Result]:
        return self._threads.submit(copy_context().run, step, *args)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        under_way: list[Future[Any]] = [committing for _, committing in self._commits]
        under_way += [reading for _, reading in self._ahead]
        if error is None or isinstance(error, Exception):
            _await(under_way)
        # Otherwise the process ends, and does not wait for threads.
        self._threads.shutdown(wait=False, cancel_futures=True)
        if error is None:
            for each in under_way:
                each.result()


class _Here(Executor):
    """Does what it is given at once, on the thread that gives it."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **options: Any) -> Future[Result]:
        future: Future[Result] = Future()
        future.set_result(fn(*args, **options))
        return future


def _await(steps: Collection[Future[Any]]) -> None:
    """Wait for *steps* to end.

    A time limit of Celery's own for the whole message interrupts this thread with an exception, once. Steps go on, so
    they are waited for; whoever watches over the batch knows of that limit as well, and lets nothing else begin.
    """
    try:
        wait(steps)
    except Exception:  # noqa: BLE001  (whatever the signal's handler raises)
        wait(steps)


def _result(step: Future[Result]) -> Result:
    _await([step])
    return step.result()
