"""Who watches over a batch while it is executed: whether to go on, and for how long one agent may run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from celery_agents.work import Work


class Watch(Protocol):
    """What the executor asks of its surroundings."""

    def is_stopping(self) -> bool:
        """Whether no other agent task should be begun.

        Asked before each. Once it is true, what is answered is committed, and the rest goes round again.
        """
        ...

    def limit(self, work: Work) -> AbstractContextManager[object]:
        """Return the context in which the agent runs for *work*; what it raises on leaving is the agent's failure."""
        ...


class Unwatched:
    """Nobody: it goes on to the end, and an agent may take for ever."""

    def is_stopping(self) -> bool:
        """Go on."""
        return False

    def limit(self, work: Work) -> AbstractContextManager[object]:  # noqa: ARG002  (all are the same)
        """Limit nothing."""
        return nullcontext()
