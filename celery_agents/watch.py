"""Who watches over a batch while it is executed: whether to go on, and for how long one agent may run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from celery_agents.progress import Progress
    from celery_agents.work import Work

#: How much of a message's soft time limit is used to begin agent tasks: the last one, and the commit, need some too.
SHARE_OF_TIME_LIMIT = 0.8


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that the agent may take for one agent task; None is for ever."""

    soft: float | None = None  #: until ``SoftTimeLimitExceeded`` is raised in it
    hard: float | None = None  #: until its process is ended

    @property
    def longest(self) -> float:
        """How long one agent task may take at most; 0 where there is no limit."""
        return max(self.soft or 0.0, self.hard or 0.0)


NO_LIMITS = Limits()


class Watch(Protocol):
    """What the executor asks of its surroundings."""

    def is_stopping(self) -> bool:
        """Whether no other agent task should be begun.

        Asked before each. Once it is true, what is answered is committed, and the rest goes round again.
        """
        ...

    def limit(self, works: Sequence[Work]) -> AbstractContextManager[object]:
        """Return the context of one call of the agent; what it raises on leaving is the agent's failure.

        To be asked for in the thread that calls.
        """
        ...

    def limit_on_loop(self, work: Work) -> AbstractContextManager[object]:
        """Return the same for an agent that is a coroutine; to be entered and left on its event loop."""
        ...

    def check(self, seconds: float) -> None:
        """Raise in an agent that has been at an agent task for so many seconds, and should leave it.

        Raises:
            Cancelled: Its message was cancelled.
            TimeoutError: The time is up.
        """
        ...

    def hear(self, progress: Progress) -> None:
        """Know that an agent has told something of its progress; must neither wait nor raise."""
        ...


class Unwatched:
    """Nobody: it goes on to the end, and an agent may take for ever."""

    def is_stopping(self) -> bool:
        """Go on."""
        return False

    def limit(self, works: Sequence[Work]) -> AbstractContextManager[object]:  # noqa: ARG002  (all are the same)
        """Limit nothing."""
        return nullcontext()

    def limit_on_loop(self, work: Work) -> AbstractContextManager[object]:  # noqa: ARG002
        """Limit nothing."""
        return nullcontext()

    def check(self, seconds: float) -> None:
        """Let it go on."""

    def hear(self, progress: Progress) -> None:
        """Tell nobody."""
