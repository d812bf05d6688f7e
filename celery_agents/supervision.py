"""Watch over one message in a worker: is it to go on, and does an agent take too long?"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

from celery_agents import stopping, time_limits
from celery_agents.delivery import Delivery, Unledgered
from celery_agents.errors import Cancelled, ExpiredError, TimedOutError
from celery_agents.messages import TRACEBACK_LIMIT, TaskError
from celery_agents.progress import Progress
from celery_agents.redaction import excerpt
from celery_agents.time_limits import LoopLimit, MainThreadLimit, TimeLimit
from celery_agents.watch import NO_LIMITS, Limits, Unwatched
from celery_agents.work import Work

logger = logging.getLogger(__name__)


_UNLIMITED = nullcontext()


def _kind_here() -> type[TimeLimit] | None:
    """Return how a limit is kept on this thread."""
    if time_limits.can_be_enforced():
        return MainThreadLimit
    # Beside the main thread a process can only be ended, and a worker's own is not.
    return TimeLimit if time_limits.may_end_process() else None


class Supervision:
    """What watches over one message; see ``watch.Watch``.

    Args:
        message_id: Celery's id.
        delivery: What the ledger knows of it.
        seconds: For how long agent tasks of this message may be begun; None for ever.
        limits: For each agent task.
        expires: When nobody wants the result any more; None for never.
        hear: Told when an agent has told something of its progress.
        clock: Seconds.
    """

    def __init__(
        self,
        message_id: str,
        delivery: Delivery,
        *,
        seconds: float | None = None,
        limits: Limits = NO_LIMITS,
        expires: datetime | None = None,
        hear: Callable[[Progress], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._message_id = message_id
        self._delivery = delivery
        self._limits = limits
        self._has_limits = limits.longest > 0
        self._expires = expires
        self._hear = hear
        self._clock = clock
        self._is_expired = False
        self._ends_at = None if seconds is None else clock() + seconds

    def is_stopping(self) -> bool:
        """Whether the worker stops, the message is cancelled or expired, or its own time limit is near."""
        is_late = self._ends_at is not None and self._clock() > self._ends_at
        return is_late or stopping.is_stopping() or self.is_cancelled() or self._is_expired

    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled the message."""
        return stopping.is_cancelled(self._message_id) or self._delivery.is_cancelled()

    def is_expired(self) -> bool:
        """Whether an agent was told that the message has expired. Where none asks, a message that has begun goes on."""
        return self._is_expired

    def check(self, seconds: float) -> None:
        """Raise in an agent that has been at an agent task for so many seconds, and should leave it."""
        if self.is_cancelled():
            raise Cancelled(f"Message {self._message_id} was cancelled; this agent task stays as it was.")
        if self._expires is not None and datetime.now(UTC) > self._expires:
            self._is_expired = True
            raise ExpiredError(f"Message {self._message_id} has expired; this agent task stays as it was.")
        # An agent that can be interrupted was interrupted, see `limit`; one in another thread cannot be.
        if self._limits.soft is not None and seconds > self._limits.soft:
            raise TimedOutError(
                f"TIMED_OUT: it took longer than its soft_time_limit of {self._limits.soft:g} s."
            )

    def hear(self, progress: Progress) -> None:
        """Pass on that an agent has told something of its progress."""
        self._hear(progress)

    def limit(self, works: Sequence[Work]) -> AbstractContextManager[object]:
        """Return the context in which the agent is interrupted when it takes too long, where that is possible."""
        return self._limit(works, _kind_here)

    def limit_on_loop(self, work: Work) -> AbstractContextManager[object]:
        """Return the context in which a coroutine is cancelled when it takes too long."""
        return self._limit([work], lambda: LoopLimit)

    def _limit(
        self, works: Sequence[Work], choose: Callable[[], type[TimeLimit] | None]
    ) -> AbstractContextManager[object]:
        for work in works:
            if work.progress is not None:
                work.progress.begin()
        kind = choose() if self._has_limits else None
        if kind is None:
            return _UNLIMITED
        return kind(
            self._limits.soft, self._limits.hard, lambda error, stack: self._note_end(works, error, stack)
        )

    def _note_end(self, works: Sequence[Work], error: TimedOutError, stack: str) -> None:
        if len(works) > 1:
            # Nobody knows which of the list it is. The next delivery calls the agent for each alone, and finds out.
            logger.critical(
                "A list of %d agent tasks: %s This process ends; where it was:\n%s", len(works), error, stack
            )
            return
        (work,) = works
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


class Limiting(Unwatched):
    """Watches over agent tasks that no message brought: nothing stops them, but none may take too long.

    Args:
        limits: For each agent task, where they can be enforced, see ``time_limits``.
    """

    def __init__(self, limits: Limits) -> None:
        self._supervision = Supervision("", Unledgered(), limits=limits)

    def check(self, seconds: float) -> None:
        """Raise TimedOutError where an agent that cannot be interrupted has taken too long."""
        self._supervision.check(seconds)

    def limit(self, works: Sequence[Work]) -> AbstractContextManager[object]:
        """Return the context in which the agent is interrupted when it takes too long."""
        return self._supervision.limit(works)

    def limit_on_loop(self, work: Work) -> AbstractContextManager[object]:
        """Return the context in which a coroutine is cancelled when it takes too long."""
        return self._supervision.limit_on_loop(work)
