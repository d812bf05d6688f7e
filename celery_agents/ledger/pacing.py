"""The ledger's operations on how long agent tasks take, for who makes messages of them."""

from __future__ import annotations

from uuid import UUID

from celery_agents.ledger import calls
from celery_agents.ledger.part import Part, milliseconds

#: Seconds for which it is known how long agent tasks of a stage took. A stage at which nothing comes by over a weekend
#: need not learn it again.
PACE_KEPT = 7 * 24 * 3600.0


class Pacing(Part):
    """How long agent tasks take."""

    def note_pace(self, stage_uuid: UUID, number: int, seconds: float) -> None:
        """Note how long so many agent tasks took together, in one message."""
        key = self.keys.pace(stage_uuid)
        self._connection.run(
            calls.NotePace(pace=key, took=round(seconds * 1e6), number=number, ttl=milliseconds(PACE_KEPT))
        )

    def pace(self, stage_uuid: UUID) -> float | None:
        """Return how many seconds an agent task of a stage takes, of late and on average; None where nobody knows.

        A message counts for as much as it had agent tasks, so that small ones, which mostly wait, do not mislead.
        """
        took, number = self._connection.command("HMGET", self.keys.pace(stage_uuid), "took", "number")
        return float(took) / 1e6 / float(number) if took and float(number) else None
