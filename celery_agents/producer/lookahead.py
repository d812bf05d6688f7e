"""Read ahead: what is slow to come is fetched in a thread, while what came before is dealt with."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterator[Item], size: int, number: int) -> Generator[list[Item]]:
    """Yield *items*, in order and in lists; what they raise comes after what they gave before.

    The first *size* of them are read here, one by one as they are asked for, and where there are no more, nothing else
    happens. The rest is read by a thread, which ends after the list that it is on when this generator is closed.

    Args:
        items: What is slow to come.
        size: How many of them are handed over together.
        number: How many such lists are read before they are asked for, at most.
    """
    first = 0
    for item in islice(items, size):
        first += 1
        yield [item]
    if first < size:
        return
    reader = _Reader(items, size, number)
    # Nobody waits for it: at the end of the process, or after Ctrl-C, a call may be under way that takes long.
    threading.Thread(target=reader.read, name="agents-listing", daemon=True).start()
    try:
        yield from reader.given()
    finally:
        reader.stop()


class _Reader(Generic[Item]):
    """Hands lists from the thread that reads them to the one that asks for them."""

    def __init__(self, items: Iterator[Item], size: int, number: int) -> None:
        self._items, self._size = items, size
        self._read: SimpleQueue[tuple[list[Item], BaseException | None]] = SimpleQueue()
        self._room = threading.Semaphore(number)
        self._is_stopped = False

    def read(self) -> None:
        """Read until nothing is left, or it is stopped."""
        is_last = False
        while not is_last and self._may_read():
            taken, error = self._next()
            is_last = error is not None or len(taken) < self._size
            self._read.put((taken, error))

    def _may_read(self) -> bool:
        self._room.acquire()
        return not self._is_stopped

    def _next(self) -> tuple[list[Item], BaseException | None]:
        taken: list[Item] = []
        try:
            for item in islice(self._items, self._size):
                taken.append(item)  # noqa: PERF402  (what came before an error is kept)
        except BaseException as error:  # noqa: BLE001  (raised where it is asked for)
            return taken, error
        return taken, None

    def given(self) -> Iterator[list[Item]]:
        """Yield what was read, in the thread that asks."""
        is_last = False
        while not is_last:
            taken, error = self._read.get()
            self._room.release()
            if taken:
                yield taken
            if error is not None:
                raise error
            is_last = len(taken) < self._size

    def stop(self) -> None:
        """Let the thread end: nobody asks any more."""
        self._is_stopped = True
        self._room.release()
