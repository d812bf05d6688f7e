"""What each way of calling agents is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from celery_agents.agent import Agent
from celery_agents.watch import Watch
from celery_agents.work import Work

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage


class Turns(Protocol):
    """Whose turn it is. To be asked and told on the thread that the batch was given to."""

    def may_begin(self, works: Sequence[Work]) -> bool:
        """Whether the agent may be called for *works* now; asked right before. Once it is False nothing is begun."""
        ...

    def end(self, works: Sequence[Work]) -> None:
        """Take back *works*, whose agent is through: each is answered, has failed, or was told to stop."""
        ...

    def catch_up(self) -> None:
        """Commit what is due; asked now and then by who only waits for agents that are at work still."""
        ...


@dataclass(frozen=True, slots=True)
class Calls:
    """What all calls of one batch need."""

    agent: Agent
    stage: AgentStage
    watch: Watch
