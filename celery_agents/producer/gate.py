"""What may stand in the way of a sweep: a pause, the high-water mark, another producer; and the ledger that knows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from celery_agents.errors import LedgerError, SetupError
from celery_agents.producer.highwater import HighWater
from celery_agents.producer.locking import SweepLock
from celery_agents.producer.options import SweepOptions
from celery_agents.producer.reports import Hindrance, Reason

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class HinderedError(Exception):
    """Raised inside of a sweep when something stands in its way for now."""

    def __init__(self, hindrance: Hindrance) -> None:
        super().__init__(str(hindrance))
        self.hindrance = hindrance


class Gate:
    """Lets the sweep of one stage through, as long as nothing stands in its way.

    Without its ledger a sweep goes on, and may then send something twice: that is better than nothing. One that
    repeats would send everything again and again, and one with a high-water mark has to count, so these two need it.

    Args:
        ledger: The project's, if it has one.
        options: How the stage is swept.
        water: How many may be in flight.

    Raises:
        SetupError: There is no ledger to count what is in flight.
    """

    def __init__(self, ledger: Ledger | None, options: SweepOptions, water: HighWater | None) -> None:
        if water is not None and ledger is None:
            raise SetupError(
                "How many agent tasks are in flight is known from the ledger, and the app has none: set "
                "agents_ledger_url to a Redis or Valkey, or leave max_in_flight out."
            )
        self.ledger = ledger  #: None also after it could not be used, and was not needed
        self.needs_ledger = options.repeats or water is not None
        self._options = options
        self._water = water
        self._lock: SweepLock | None = None

    def ask(self, ask: Callable[[Ledger], Answer], otherwise: Answer) -> Answer:
        """Ask the ledger; where it cannot be used, and is not needed, go on without it.

        Raises:
            LedgerError: It is needed.
        """
        if self.ledger is None:
            return otherwise
        try:
            return ask(self.ledger)
        except LedgerError as error:
            if self.needs_ledger:
                raise
            logger.warning("The sweep goes on without the ledger, so something may be sent twice: %s", error)
            self.ledger = None
            return otherwise

    def room(self, stage_uuid: UUID) -> float:
        """Return how many agent tasks may be sent now, at least one.

        Raises:
            HinderedError: None.
        """
        if self._options.is_stopping():
            raise HinderedError(Hindrance(Reason.STOPPING))
        if not self.keep_lock():
            raise HinderedError(Hindrance(Reason.LOCKED))
        pause = self.ask(lambda ledger: ledger.paused_for(stage_uuid), 0.0)
        if pause:
            raise HinderedError(Hindrance(Reason.PAUSED, seconds=pause))
        return self._room_in_flight(stage_uuid)

    def _room_in_flight(self, stage_uuid: UUID) -> float:
        if self._water is None:
            return float("inf")
        in_flight = self.ask(lambda ledger: ledger.in_flight(stage_uuid), 0)
        room = self._water.room(in_flight)
        if not room:
            raise HinderedError(Hindrance(Reason.FULL, in_flight=in_flight, goes_on_at=self._water.low))
        return room

    @contextmanager
    def locked(self, stage_uuid: UUID) -> Iterator[None]:
        """Keep other producers from sweeping the stage meanwhile; HinderedError where one is."""
        if self.ledger is None or self._options.force:
            yield
            return
        self._lock = lock = SweepLock(self.ledger, stage_uuid, self._options.lock_seconds)
        try:
            if not self.ask(lambda _: lock.take(), otherwise=True):
                raise HinderedError(Hindrance(Reason.LOCKED))
            yield
        finally:
            self._lock = None
            _give_back(lock)

    def keep_lock(self) -> bool:
        """Renew the lock if it is time for that; return whether it is still ours, where one was taken."""
        lock = self._lock
        return lock is None or lock.is_fresh() or self.ask(lambda _: lock.keep(), otherwise=True)


def _give_back(lock: SweepLock) -> None:
    try:
        lock.give_back()
    except LedgerError as error:
        logger.debug("The lock on a sweep stays until it expires: %s", error)
