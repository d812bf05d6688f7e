"""How much may be in flight: the producer stops at a high mark, and goes on at a low one."""

from __future__ import annotations

from celery_agents.errors import SetupError

#: The low mark, as a share of the high one. Half: workers have as much again to do while the stage is listed, and what
#: is sent then are whole batches and not one agent task whenever another is done.
LOW_SHARE = 0.5


class HighWater:
    """The marks of one stage, and whether its producer has stopped at the high one.

    Args:
        high: How many agent tasks may be in flight.
        is_full: Whether it has stopped. So begins who sweeps without a memory, as a beat entry does: with room for
            one, it would send one at each beat.

    Raises:
        SetupError: *high* is less than 1.
    """

    def __init__(self, high: int, *, is_full: bool = False) -> None:
        if high < 1:
            raise SetupError(f"At least one agent task must be allowed in flight: {high}.")
        self.high = high
        self.low = int(high * LOW_SHARE)
        self.is_full = is_full

    def room(self, in_flight: int) -> int:
        """Return how many more may be sent while so many are in flight."""
        if in_flight <= self.low:
            self.is_full = False
        elif in_flight >= self.high:
            self.is_full = True
        return 0 if self.is_full else self.high - in_flight
