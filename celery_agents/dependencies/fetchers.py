"""What fetches media ahead in this process: a few threads, and the memory that they may fill, for all deliveries."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

#: Media that are fetched ahead at the same time.
THREADS = 16


class Fetchers:
    """The threads of one process, and how much of its memory is taken.

    Threads start as they are needed, and then wait for more to do. They are daemons: a download that drips on, which
    nobody waits for any more, does not hold up the end of the process.
    """

    def __init__(self) -> None:
        self._taken: dict[object, int] = {}
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self._lock = threading.Lock()

    def take_room(self, whose: object, number: int, memory: int) -> bool:
        """Take so many bytes, if they leave it at *memory* in all or nothing else is taken; return whether they did."""
        with self._lock:
            has_room = not self._taken or sum(self._taken.values()) + number <= memory
            if has_room:
                self._taken[whose] = number
            return has_room

    def give_back(self, whose: object) -> None:
        """Give back the bytes that somebody has taken; who has none changes nothing."""
        with self._lock:
            self._taken.pop(whose, None)

    def submit(self, job: Callable[[], object]) -> None:
        """Have *job* done by a thread, after those before; it must not raise."""
        self._jobs.put(job)
        with self._lock:
            if not self._idle.acquire(blocking=False) and self._threads < THREADS:
                # At the end of the process no thread can be started: then it stays undone.
                with suppress(RuntimeError):
                    threading.Thread(target=self._work, name="agents-media", daemon=True).start()
                    self._threads += 1

    def _work(self) -> None:
        while True:
            self._jobs.get()()
            self._idle.release()


_of_process = Fetchers()


def of_process() -> Fetchers:
    """Return those of this process."""
    return _of_process


def _start_anew() -> None:
    # Threads do not survive a fork, and one of the parent may have held the lock.
    global _of_process  # noqa: PLW0603  (one for the process)
    _of_process = Fetchers()


os.register_at_fork(after_in_child=_start_anew)
