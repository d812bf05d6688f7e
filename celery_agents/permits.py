"""Permits to call Encord, so many a second for all processes of a project together: ``agents_rate_limit``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from celery_agents.errors import LedgerError

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger

logger = logging.getLogger(__name__)

#: Seconds for which a ledger that does not answer is not asked again: each time may take seconds.
AWAY_SECONDS = 10.0


class Permits:
    """The permits of one project, as one process asks for them. Shared by threads, good after a fork.

    Each call asks for itself: that is a round trip of a fraction of a millisecond before one of many. To take some
    ahead would save little, and what one process keeps and does not use, the others lack.

    Args:
        ledger: The project's.
        rate: Calls a second.
        sleep: Waits so many seconds.
        clock: Seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        rate: float,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._rate = rate
        self._sleep = sleep
        self._clock = clock
        self._asks_from = 0.0

    def await_one(self, longest: float) -> float:
        """Wait for a permit, *longest* seconds at most; return 0, or after how many seconds to ask again."""
        if self._clock() < self._asks_from:
            return 0.0
        try:
            permit = self._ledger.permit(self._rate, longest)
        except LedgerError as error:
            if not self._asks_from:
                logger.warning("Encord is called without a rate limit until the ledger is back: %s", error)
            self._asks_from = self._clock() + AWAY_SECONDS
            return 0.0
        self._asks_from = 0.0
        if permit.seconds:
            what = "waits" if permit.is_granted else "would have to wait"
            logger.debug("A call to Encord %s %.3f s for the rate limit", what, permit.seconds)
        if not permit.is_granted:
            return permit.seconds
        if permit.seconds:
            self._sleep(permit.seconds)
        return 0.0
