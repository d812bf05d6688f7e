"""Time limits of single agent tasks, for processes that run one at a time on their main thread.

Celery's limits are about messages, and a message carries many agent tasks. Here a thread watches how long the agent
has been at the present one. After the soft limit it interrupts the main thread with SIGUSR1, as Celery does after
its own, and ``SoftTimeLimitExceeded`` is raised wherever the agent is. What does not heed that, because it
swallows exceptions or hangs in a library, is ended together with its process after the hard limit.

Neither can be done to one of several threads, so pools of threads and of greenlets have no limits of this kind.
"""

from __future__ import annotations

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
    """A context manager in which one agent task may take so long.

    Raises:
        TimedOutError: On leaving it with an exception after the soft limit had passed.
    """

    soft: float | None  #: seconds
    hard: float | None  #: seconds
    on_hard: OnHardLimit
    began: float = field(default=0.0, init=False)
    is_interrupted: bool = field(default=False, init=False)  #: the soft limit has passed

    def __enter__(self) -> None:
        self.began = time.monotonic()
        _watchdog().watch(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        _watchdog().leave()
        if self.is_interrupted and isinstance(error, Exception):
            raise TimedOutError(
                f"TIMED_OUT: it took longer than its soft_time_limit of {self.soft:g} s."
            ) from error

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

    def end_process(self) -> None:
        """Say where the main thread is, and end this process."""
        error = TimedOutError(f"TIMED_OUT: it took longer than its time_limit of {self.hard:g} s.")
        try:
            self.on_hard(error, _stack_of_main_thread())
        finally:
            os._exit(EXIT_CODE)


def can_be_enforced() -> bool:
    """Whether the running code can be interrupted: it is on the main thread."""
    return SIGNAL is not None and threading.current_thread() is threading.main_thread()


def may_end_process() -> bool:
    """Whether this process is one of a pool, which replaces it; a worker itself is not ended."""
    return bool(current_process().name != "MainProcess")


def _stack_of_main_thread() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001  # there is no public one
    return "".join(traceback.format_stack(frame)) if frame else ""


class _Watchdog(threading.Thread):
    """Looks after the one agent task that the main thread is on."""

    def __init__(self) -> None:
        super().__init__(name="agent-time-limits", daemon=True)
        self._current: TimeLimit | None = None
        self._due: TimeLimit | None = None  #: whom the signal that is under way is for
        self._wake = threading.Event()
        assert SIGNAL is not None  # see can_be_enforced
        self._signal = SIGNAL
        self._previous: Any = signal.signal(SIGNAL, self._on_signal)

    def watch(self, limit: TimeLimit) -> None:
        """Look after *limit* from now on."""
        self._current = limit
        self._wake.set()
        if limit.hard is not None and may_end_process() and sys.__stderr__ is not None:
            with contextlib.suppress(ValueError, OSError):  # a standard error that is closed or no file
                faulthandler.dump_traceback_later(limit.hard + LAST_RESORT, exit=True, file=sys.__stderr__)

    def leave(self) -> None:
        """Look after nobody."""
        limit, self._current = self._current, None
        if limit is not None and limit.hard is not None:
            faulthandler.cancel_dump_traceback_later()

    def run(self) -> None:
        """Look now and then, while there is somebody to look after."""
        while True:
            self._wake.wait()
            limit = self._current
            if limit is None:
                self._wake.clear()
                if self._current is None:
                    continue
            else:
                self._look(limit)
            time.sleep(TICK)

    def _look(self, limit: TimeLimit) -> None:
        if limit.is_hard_due() and may_end_process():
            limit.end_process()
        elif limit.is_soft_due():
            self._due = limit
            signal.pthread_kill(threading.main_thread().ident or 0, self._signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        limit, self._due = self._due, None
        if limit is None:  # Celery's own limit, for the message
            if callable(self._previous):
                self._previous(number, frame)
        elif limit is self._current:  # else it ended meanwhile
            limit.is_interrupted = True
            raise SoftTimeLimitExceeded(limit.soft)


_of_process: tuple[int, _Watchdog] | None = None


def _watchdog() -> _Watchdog:
    """Return this process's watchdog; threads do not survive a fork."""
    global _of_process  # noqa: PLW0603  (one for each process)
    if _of_process is None or _of_process[0] != os.getpid():
        _of_process = os.getpid(), _Watchdog()
        _of_process[1].start()
    return _of_process[1]
