"""The lock on sweeping a stage: of several producers one lists it, and the others leave it to that one.

Claims already keep an agent task from being sent twice; the lock saves the listing, and keeps the count that the
high-water mark is compared with. It expires, so that a producer that was killed does not stop the others for long.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger

#: Seconds after which the lock of a producer that died is anybody's. One call to Encord, with connecting, takes less.
LOCK_SECONDS = 60.0
#: How often within that time it is renewed.
RENEWALS = 4


class SweepLock:
    """The lock on one stage, for one sweep. Each operation may raise LedgerError.

    Args:
        ledger: Where it is kept.
        stage_uuid: What it is about.
        seconds: When it expires unless it is renewed.
    """

    def __init__(self, ledger: Ledger, stage_uuid: UUID, seconds: float = LOCK_SECONDS) -> None:
        self._ledger = ledger
        self._stage_uuid = stage_uuid
        self._seconds = seconds
        self._holder = str(uuid.uuid4())
        self._renewed_at = 0.0
        self._is_ours = False

    def take(self) -> bool:
        """Take it, or renew it; return whether it is ours."""
        self._renewed_at = time.monotonic()
        self._is_ours = self._ledger.lock_sweep(self._stage_uuid, self._holder, self._seconds)
        return self._is_ours

    def is_fresh(self) -> bool:
        """Whether it is ours, and it is not yet time to renew it."""
        return self._is_ours and time.monotonic() - self._renewed_at <= self._seconds / RENEWALS

    def keep(self) -> bool:
        """Renew it if it is time for that; return whether it is still ours. Once lost it stays so."""
        return self.is_fresh() or (self._is_ours and self.take())

    def give_back(self) -> None:
        """Let others sweep."""
        self._ledger.unlock_sweep(self._stage_uuid, self._holder)
