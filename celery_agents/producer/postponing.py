"""What is new goes first: a sweep that may send only so many comes to everything in the end."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents.claims import Spec
from celery_agents.messages import Outcome

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger

#: What stays at its stage when it is decided.
STAYING = frozenset({Outcome.HELD, Outcome.FAILED})
#: Specs that are kept for the end at most: about two megabytes.
MOST_POSTPONED = 5_000


def decided(ledger: Ledger, stage_uuid: UUID, specs: list[Spec]) -> dict[UUID, datetime]:
    """Return when those of *specs* were decided that stay at the stage although they were.

    Raises:
        LedgerError: The ledger cannot be used.
    """
    records = ledger.outcomes_of([task_uuid for task_uuid, _ in specs]).records
    return {
        record.task_uuid: record.at
        for record in records
        if record.stage_uuid == stage_uuid and record.outcome.outcome in STAYING
    }


class Postponed:
    """Specs of agent tasks that were decided before, and are sent after those that were not.

    They are first in each listing, for those that PROCEEDED are gone. If they were sent in that order, a sweep that
    stops at a limit or a mark would send the same ones each time.
    """

    def __init__(self) -> None:
        self._latest_first: list[tuple[float, UUID, str]] = []

    def new_of(self, specs: list[Spec], decided_at: Mapping[UUID, datetime]) -> list[Spec]:
        """Return those that were not decided, and keep the others; of very many those whose turn it is."""
        for task_uuid, text in specs:
            if task_uuid in decided_at:
                self._keep(-decided_at[task_uuid].timestamp(), task_uuid, text)
        return [spec for spec in specs if spec[0] not in decided_at]

    def _keep(self, order: float, task_uuid: UUID, text: str) -> None:
        heapq.heappush(self._latest_first, (order, task_uuid, text))
        if len(self._latest_first) > MOST_POSTPONED:
            heapq.heappop(self._latest_first)

    def taken(self) -> list[Spec]:
        """Return those that are kept, the one decided longest ago first, and keep none."""
        kept, self._latest_first = self._latest_first, []
        return [(task_uuid, text) for _, task_uuid, text in sorted(kept, reverse=True)]
