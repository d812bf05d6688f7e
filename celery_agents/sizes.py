"""How many agent tasks a message carries: a number, or ``"auto"``, which follows the time that agents take."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

BatchSize: TypeAlias = int | Literal["auto"]

AUTO: Final = "auto"
#: Where nothing is said or known: as many as are loaded together, see ``executor.WINDOW``.
USUAL = 100
#: Seconds that a message is to take: many times what it costs to send one, and not long to wait for behind others.
SECONDS_PER_MESSAGE = 10.0
LEAST, MOST = 10, 1_000


def usual(size: BatchSize) -> int:
    """Return *size* as it is where nobody knows how long agents take."""
    return USUAL if size == AUTO else size


def size_for(seconds: float) -> int:
    """Return how many agent tasks of so many seconds each make a message; above 100 so that no window is half full."""
    fitting = min(max(SECONDS_PER_MESSAGE / max(seconds, 1e-6), LEAST), MOST)
    return int(fitting // USUAL * USUAL or fitting)
