"""How far an agent is with one agent task: what an agent or a dependency asks for as ``Progress``, and tells."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from celery_agents.errors import Cancelled, ExpiredError

if TYPE_CHECKING:
    from celery_agents.messages import TaskProgress


class Listener(Protocol):
    """Who is told how far an agent task is."""

    def check(self, seconds: float) -> None:
        """Raise where an agent that has been at an agent task for so many seconds should leave it."""
        ...

    def hear(self, progress: Progress) -> None:
        """Know that *progress* has something new; called from any thread, and must neither wait nor raise."""
        ...


class Progress:
    """Tells how far an agent is with one agent task; to be asked for by annotation, as ``progress: Progress``.

        for number, frame in enumerate(frames):
            progress.update(number, len(frames), "frames")

    What is told is read with ``AgentResult(id).progress.tasks``. It may be called from any thread, and as often as it
    suits: it takes microseconds, and what is told in quick succession is written twice a second at most.

    Args:
        task_uuid: The agent task.
        listener: Who is told; by default nobody, which is what a unit test of an agent may pass: ``Progress()``.
    """

    def __init__(self, task_uuid: UUID | None = None, listener: Listener | None = None) -> None:
        self.task_uuid = task_uuid
        self.is_told_to_stop = False  #: its message was cancelled or has expired, and ``update`` has said so
        self._listener = listener
        self._began_at = time.monotonic()
        self._told: tuple[float, float, str | None, datetime] | None = None

    def update(self, current: float, total: float, text: str | None = None) -> None:
        """Tell that *current* of *total* is done, in any unit; *total* is 0 where nobody knows.

        Args:
            current: How much is done.
            total: How much there is to do.
            text: What it is at, for people; its first and last hundred characters are kept.

        Raises:
            TimeoutError: The time is up: the message's ``expires`` has passed (``ExpiredError``; the agent task stays
                as it was), or the stage's ``soft_time_limit`` (``TimedOutError``; the agent task FAILED).
            Cancelled: The message was cancelled; the agent task stays as it was. Let it pass, after cleaning up.
            ValueError: One of the numbers is not finite.
        """
        numbers = _finite(current, "current"), _finite(total, "total")
        self._told = (*numbers, text, datetime.now(UTC))
        if self._listener is None:
            return
        try:
            self._listener.check(time.monotonic() - self._began_at)
        except (Cancelled, ExpiredError) as error:
            self.is_told_to_stop = error.leaves_agent_task = True
            raise
        self._listener.hear(self)

    def begin(self) -> None:
        """Let the time of the agent task count from now on."""
        self._began_at = time.monotonic()

    @property
    def latest(self) -> TaskProgress | None:
        """What was told last; None where nothing was."""
        if self._told is None:
            return None
        # Here, so that declaring an agent imports no pydantic.
        from celery_agents.messages import TaskProgress

        current, total, text, at = self._told
        return TaskProgress(current=current, total=total, text=None if text is None else str(text), at=at)


def _finite(number: float, name: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(
            f"progress.update: {name} is {value}; give a finite number, and 0 for an unknown total."
        )
    return value
