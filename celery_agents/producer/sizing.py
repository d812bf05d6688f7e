"""How many agent tasks the messages of one sweep carry."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents.errors import SetupError
from celery_agents.producer.gate import Gate
from celery_agents.sizes import AUTO, BatchSize, size_for, usual

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger

logger = logging.getLogger(__name__)


class Sizing:
    """The size of a stage's messages; with ``"auto"`` it follows what workers tell of how long agents take.

    Args:
        chosen: What the stage or the sweep says.
        gate: By which the ledger is asked.

    Raises:
        SetupError: The size is less than 1.
    """

    def __init__(self, chosen: BatchSize, gate: Gate) -> None:
        self.size = usual(chosen)
        self._is_auto = chosen == AUTO
        self._gate = gate
        if self.size < 1:
            raise SetupError(f"A batch has at least one agent task: {self.size}.")
        if self._is_auto and gate.ledger is None:
            logger.warning(
                'batch_size="auto": how long agents take is known from the ledger. There is none, so messages carry %d '
                "agent tasks.",
                self.size,
            )

    def adapt(self, stage_uuid: UUID) -> int | None:
        """Look how long agents take by now; return the size, or None where it does not depend on that."""
        if not self._is_auto:
            return None

        def pace(ledger: Ledger) -> float | None:
            return ledger.pace(stage_uuid)

        seconds = self._gate.ask(pace, None)
        if seconds is not None:
            self.size = size_for(seconds)
        return self.size
