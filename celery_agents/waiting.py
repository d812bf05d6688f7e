"""Wait for something that is looked at again and again: until when, and how long between two looks."""

from __future__ import annotations

import time
from collections.abc import Iterator

#: Seconds between two looks, at first and at most, where nobody tells that there is news.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0


class Deadline:
    """A point in time, *timeout* seconds from now, or never."""

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def is_over(self) -> bool:
        """Whether it has passed."""
        return self._at is not None and time.monotonic() >= self._at

    def at_most(self, seconds: float) -> float:
        """Return *seconds*, or what is left where that is less."""
        return seconds if self._at is None else max(0.0, min(seconds, self._at - time.monotonic()))


def pauses(longest: float) -> Iterator[float]:
    """Yield growing pauses, in seconds, up to *longest*: news soon after the start is seen soon."""
    seconds = FIRST_PAUSE
    while True:
        yield min(seconds, longest)
        seconds *= 1.5
