"""Decide from looks at a worker whether it is stuck. No Celery, no broker, no clock: a look is a value.

Looks are counted instead of timed, so that a machine that slept, or a paused container, is not taken for a stuck one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Look:
    """What a worker was seen to be at one moment."""

    fetched: int  #: messages that it has fetched since it started
    has_free_slots: bool  #: whether it could fetch another one
    waiting: frozenset[str]  #: which of its queues are not empty; none where the broker could not be asked
    connection: int  #: the number of its present or latest connection to the broker
    is_connected: bool  #: whether it has that connection still; otherwise Celery is making the next one


class Reaction(Enum):
    """What to do about a stuck worker."""

    RECONNECT = auto()
    EXIT = auto()


class Suspicion:
    """Grows with each look at a worker that could fetch from a queue that is not empty, and does not.

    One message fetched ends it, and so does one look at which no slot is free, or at which each queue has been empty at
    some time: other workers may be at the same queue, and whoever finds it empty misses nothing.

    Args:
        looks: After so many in a row the worker is stuck.
        patience: So many more while Celery is making a connection, which takes it a while after a long outage.
    """

    def __init__(self, looks: int, patience: int) -> None:
        self.is_stuck = False
        self.fetched = -1  #: at the latest look
        self._looks = looks
        self._patience = patience
        self._connection = -1
        self._waiting: frozenset[str] = frozenset()  # not empty at any look since the suspicion began
        self._seen = 0  # looks since then, or since the latest reaction
        self._has_reconnected = False

    def judge(self, look: Look) -> Reaction | None:
        """Return what is to be done now, once: reconnect, and if as many looks later it is stuck still, exit."""
        waiting = self._waiting & look.waiting if look.fetched == self.fetched else frozenset()
        if not waiting or not look.has_free_slots:
            self.fetched = look.fetched
            self._connection = look.connection
            self._start_over(look.waiting if look.has_free_slots else frozenset())
            return None
        self._waiting = waiting
        if look.connection != self._connection:
            # A new connection deserves as much time as the one before.
            self._connection = look.connection
            self._seen = 0
            return None
        return self._react(look.is_connected)

    def _react(self, is_connected: bool) -> Reaction | None:
        self._seen += 1
        if self._seen < self._looks + (0 if is_connected else self._patience):
            return None
        self.is_stuck = True
        self._seen = 0
        if is_connected and not self._has_reconnected:
            self._has_reconnected = True
            return Reaction.RECONNECT
        return Reaction.EXIT

    def _start_over(self, waiting: frozenset[str]) -> None:
        self._waiting = waiting
        self._seen = 0
        self._has_reconnected = False
        self.is_stuck = False
