"""Time limits of single agent tasks.

Celery's limits are about messages, and a message carries many agent tasks. Here a thread watches how long agents have
been at theirs. After the soft limit it interrupts the agent, wherever that is: on the main thread with SIGUSR1, as
Celery does after its own limit, which raises ``SoftTimeLimitExceeded`` there; on the event loop by cancelling the
agent's coroutine. What does not heed that, because it swallows exceptions or hangs in a library, is ended together with
its process after the hard limit.

Nothing can be raised in a thread beside the main one, so what runs there has a hard limit only.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

from billiard.process import current_process
from celery.exceptions import SoftTimeLimitExceeded

from celery_agents.errors import TimedOutError

#: Seconds between two looks of the watching thread; limits are kept to this.
TICK = 0.05
#: What Celery and billiard interrupt the main thread with; Windows has none.
SIGNAL: int | None = getattr(signal, "SIGUSR1", None)
#: Exit code of a process that was ended at the hard limit of an agent task. EX_TEMPFAIL of sysexits.h.
EXIT_CODE = 75
#: Seconds after the hard limit at which the process ends even where the watching thread cannot run, because a library
#: holds the interpreter's lock. Nobody notes then why, so it counts as a crash.
LAST_RESORT = 15.0

#: Told, before the process ends, why and where the agent was.
OnHardLimit = Callable[[TimedOutError, str], object]


@dataclass(slots=True, eq=False)
class TimeLimit:
    """A context manager in which an agent may take so long; in any thread, so that only the hard limit is kept.

    Raises:
        TimedOutError: On leaving it with an exception after the soft limit had passed.
    """

    soft: float | None  #: seconds
    hard: float | None  #: seconds
    on_hard: OnHardLimit
    began: float = field(default=0.0, init=False)
    thread: int = field(default=0, init=False)  #: where the agent runs
    is_interrupted: bool = field(default=False, init=False)  #: the soft limit has passed

    def __enter__(self) -> None:
        self.began = time.monotonic()
        self.thread = threading.get_ident()
        _watchdog().watch(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        _watchdog().leave(self)
        if self.is_interrupted and isinstance(error, Exception):
            raise self.timed_out() from error

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    def is_soft_due(self) -> bool:
        """Whether it is time to interrupt it."""
        return self.soft is not None and not self.is_interrupted and self.seconds >= self.soft

    def is_hard_due(self) -> bool:
        """Whether it is time to end the process."""
        return self.hard is not None and self.seconds >= self.hard

    def interrupt(self) -> None:
        """Interrupt the agent, called by the watching thread; nothing reaches a thread beside the main one."""

    def stack(self) -> str:
        """Where the agent is, for people."""
        frame = sys._current_frames().get(self.thread)  # noqa: SLF001  # there is no public one
        return "".join(traceback.format_stack(frame)) if frame else ""

    def timed_out(self) -> TimedOutError:
        """What to raise after the soft limit."""
        return TimedOutError(f"TIMED_OUT: it took longer than its soft_time_limit of {self.soft:g} s.")

    def end_process(self) -> None:
        """Say where the agent is, and end this process."""
        error = TimedOutError(f"TIMED_OUT: it took longer than its time_limit of {self.hard:g} s.")
        try:
            self.on_hard(error, self.stack())
        finally:
            os._exit(EXIT_CODE)


class MainThreadLimit(TimeLimit):
    """The limit of an agent that runs on the main thread."""

    __slots__ = ()

    def __enter__(self) -> None:
        global _of_main_thread  # noqa: PLW0603  (there is one main thread)
        _catch_signal()
        if _of_main_thread is not None:
            _watchdog().leave(_of_main_thread)  # interrupted at the moment of leaving, it never left
        _of_main_thread = self
        super().__enter__()

    def interrupt(self) -> None:
        """Raise ``SoftTimeLimitExceeded`` on the main thread."""
        global _interrupted  # noqa: PLW0603  (there is one main thread)
        assert SIGNAL is not None  # see can_be_enforced
        _interrupted = self
        signal.pthread_kill(self.thread, SIGNAL)


class LoopLimit(TimeLimit):
    """The limit of an agent that is a coroutine; entered and left on its event loop."""

    __slots__ = ("_is_asked", "_loop", "_task")

    def __enter__(self) -> None:
        self._is_asked = False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self.is_interrupted and task is not None:
            task.uncancel()
            if isinstance(error, asyncio.CancelledError):
                # As on the main thread, so that ``autoretry_for`` names the same for both.
                error = SoftTimeLimitExceeded(self.soft).with_traceback(error.__traceback__)
        super().__exit__(kind, error, where)

    def interrupt(self) -> None:
        """Cancel the coroutine, once, unless it is through when the loop gets to that."""
        if not self._is_asked:
            self._is_asked = True
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self.is_interrupted = True
            self._task.cancel()

    def stack(self) -> str:
        """Where the coroutine waits, and where the loop is, which it may keep from going on."""
        frames = self._task.get_stack() if self._task is not None else []
        waiting = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
        return "".join(waiting.format()) + super().stack()


def can_be_enforced() -> bool:
    """Whether the running code can be interrupted: it is on the main thread."""
    return SIGNAL is not None and threading.current_thread() is threading.main_thread()


def may_end_process() -> bool:
    """Whether this process is one of a pool, which replaces it; a worker itself is not ended."""
    return bool(current_process().name != "MainProcess")


class _Watchdog(threading.Thread):
    """Looks after the agents that are at work in this process."""

    def __init__(self) -> None:
        super().__init__(name="agent-time-limits", daemon=True)
        self._current: dict[TimeLimit, None] = {}
        self._wake = threading.Event()
        self._arming = threading.Lock()

    def watch(self, limit: TimeLimit) -> None:
        """Look after *limit* from now on."""
        self._current[limit] = None
        self._wake.set()
        if limit.hard is not None:
            self._arm_last_resort()

    def leave(self, limit: TimeLimit) -> None:
        """Look after it no more."""
        self._current.pop(limit, None)
        if limit.hard is not None:
            self._arm_last_resort()

    def is_watched(self, limit: TimeLimit) -> bool:
        """Whether the agent of *limit* is still at work."""
        return limit in self._current

    def _arm_last_resort(self) -> None:
        if not may_end_process() or sys.__stderr__ is None:
            return
        with self._arming, contextlib.suppress(ValueError, OSError):  # standard error is closed or no file
            left = [limit.hard - limit.seconds for limit in list(self._current) if limit.hard is not None]
            if left:
                seconds = max(min(left), 0) + LAST_RESORT
                faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
            else:
                faulthandler.cancel_dump_traceback_later()

    def run(self) -> None:
        """Look now and then, while there is somebody to look after."""
        while True:
            self._wake.wait()
            self._wake.clear()
            while current := list(self._current):
                for limit in current:
                    self._look(limit)
                time.sleep(TICK)

    def _look(self, limit: TimeLimit) -> None:
        if limit.is_hard_due() and may_end_process():
            limit.end_process()
        elif limit.is_soft_due():
            limit.interrupt()


_of_main_thread: TimeLimit | None = None  #: the latest one there
_interrupted: TimeLimit | None = None  #: whom the signal that is under way is for
_before: Any = None  #: who had the signal before


def _catch_signal() -> None:
    global _before  # noqa: PLW0603  (there is one main thread)
    assert SIGNAL is not None  # see can_be_enforced
    if signal.getsignal(SIGNAL) is not _on_signal:
        _before = signal.signal(SIGNAL, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _interrupted
    limit, _interrupted = _interrupted, None
    if limit is None:  # Celery's own limit, for the message
        if callable(_before):
            _before(number, frame)
    elif _of_process is not None and _of_process[1].is_watched(limit):  # else it ended meanwhile
        limit.is_interrupted = True
        raise SoftTimeLimitExceeded(limit.soft)


_of_process: tuple[int, _Watchdog] | None = None
_starting = threading.Lock()


def _watchdog() -> _Watchdog:
    """Return this process's watchdog; threads do not survive a fork."""
    global _of_process  # noqa: PLW0603  (one for each process)
    with _starting:
        if _of_process is None or _of_process[0] != os.getpid():
            _of_process = os.getpid(), _Watchdog()
            _of_process[1].start()
        return _of_process[1]
