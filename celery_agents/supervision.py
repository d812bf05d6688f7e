"""Watch over one message in a worker: is it to go on, and does an agent take too long?"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from celery_agents import stopping, time_limits
from celery_agents.delivery import Delivery
from celery_agents.errors import TimedOutError
from celery_agents.messages import TRACEBACK_LIMIT, TaskError
from celery_agents.redaction import excerpt
from celery_agents.time_limits import TimeLimit
from celery_agents.work import Work

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that the agent may take for one agent task; None is for ever."""

    soft: float | None = None  #: until ``SoftTimeLimitExceeded`` is raised in it
    hard: float | None = None  #: until its process is ended

    @property
    def longest(self) -> float:
        """How long one agent task may take at most; 0 where there is no limit."""
        return max(self.soft or 0.0, self.hard or 0.0)


class Supervision:
    """What watches over one message; see ``watch.Watch``.

    Args:
        message_id: Celery's id.
        delivery: What the ledger knows of it.
        seconds: For how long agent tasks of this message may be begun; None for ever.
        limits: For each agent task.
        clock: Seconds.
    """

    def __init__(
        self,
        message_id: str,
        delivery: Delivery,
        *,
        seconds: float | None = None,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._message_id = message_id
        self._delivery = delivery
        self._limits = limits
        self._clock = clock
        self._ends_at = None if seconds is None else clock() + seconds

    def is_stopping(self) -> bool:
        """Whether the worker stops, the message is cancelled, or its own time limit is near."""
        is_late = self._ends_at is not None and self._clock() > self._ends_at
        return is_late or stopping.is_stopping() or self.is_cancelled()

    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled the message."""
        return stopping.is_cancelled(self._message_id) or self._delivery.is_cancelled()

    def limit(self, work: Work) -> AbstractContextManager[object]:
        """Return the context in which the agent is interrupted when it takes too long, where that is possible."""
        if not self._limits.longest or not time_limits.can_be_enforced():
            return nullcontext()
        return TimeLimit(
            self._limits.soft, self._limits.hard, lambda error, stack: self._note_end(work, error, stack)
        )

    def _note_end(self, work: Work, error: TimedOutError, stack: str) -> None:
        logger.critical(
            "Agent task %s (data unit %s): %s This process ends; where it was:\n%s",
            work.spec.uuid,
            work.spec.data_hash,
            error,
            excerpt(stack, TRACEBACK_LIMIT),
        )
        reason = TaskError.from_exception(error, "agent")
        self._delivery.time_out(
            work, reason.model_copy(update={"traceback": excerpt(stack, TRACEBACK_LIMIT)})
        )
