"""One call of a runner: passes over the stages of one project, once or again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from celery_agents.cli.signals import Interruption
from celery_agents.declaring import StageAgent
from celery_agents.errors import DeclarationError
from celery_agents.sequential.showing import Show
from celery_agents.sequential.stage_pass import PassOptions, StagePass
from celery_agents.sequential.summary import RunSummary, StageSummary

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.gateway.project import Gateway

logger = logging.getLogger(__name__)


class Run:
    """Passes over the stages of *agents*, in their order.

    Args:
        gateway: The project.
        agents: What to run.
        options: How.
        summary: Where to count; what was counted is there too where the run ends with an exception.

    Raises:
        SetupError: A stage is not there, or the key or project cannot be used.
        DeclarationError: A stage has two agents, one by its title and one by its UUID.
    """

    def __init__(
        self, gateway: Gateway, agents: Sequence[StageAgent], options: PassOptions, summary: RunSummary
    ) -> None:
        self._gateway = gateway
        self._options = options
        self._agents = {stage.uuid: (stage, agent) for agent in agents for stage in [_stage(gateway, agent)]}
        if len(self._agents) < len(agents):
            names = ", ".join(repr(str(agent.stage)) for agent in agents)
            raise DeclarationError(f"One stage, one agent: two of {names} are the same stage.")
        summary.stages = [StageSummary(stage.title, uuid) for uuid, (stage, _) in self._agents.items()]
        self._summary = summary

    def once(self, show: Show, interruption: Interruption) -> None:
        """Make one pass over each stage.

        Raises:
            EncordException: What waits cannot be listed.
            KeyboardInterrupt: On Ctrl-C, after the running agent task, and after a commit.
        """
        for (stage, agent), summary in zip(self._agents.values(), self._summary.stages, strict=True):
            with show(stage.title) as on_progress:
                StagePass(
                    agent, stage, self._gateway, self._options, summary, interruption, on_progress
                ).run()

    def repeatedly(self, every: float, show: Show, interruption: Interruption) -> None:
        """Make passes until interrupted; each begins *every* seconds after the one before began, or when that ends.

        Encord being away ends a pass, and the next one goes on.
        """
        while True:
            next_at = time.monotonic() + every
            try:
                self.once(show, interruption)
            except Exception as error:
                if not self._gateway.classify(error).transient:
                    raise
                logger.warning("The pass broke off and the next one goes on: %s", type(error).__name__)
            logger.info("So far: %s", self._summary)
            time.sleep(max(0.0, next_at - time.monotonic()))

    def raise_for_failures(self) -> None:
        """Raise AgentTaskError for the first stage that failed, as its failure policy sees it."""
        for (_, agent), summary in zip(self._agents.values(), self._summary.stages, strict=True):
            summary.raise_for(agent.options.failure_policy)


def _stage(gateway: Gateway, agent: StageAgent) -> AgentStage:
    return gateway.agent_stage(agent.stage)
