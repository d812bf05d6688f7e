"""Declaring agents: what ``@runner.stage`` makes of a function, for whichever runner runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

from celery_agents.agent import Agent
from celery_agents.dependencies.plan import plan
from celery_agents.errors import DeclarationError
from celery_agents.options import StageOptions
from celery_agents.providers import PROVIDERS, SHARED


@dataclass(frozen=True, slots=True)
class StageAgent:
    """What ``@runner.stage`` declared: the user's function for one stage, and its options."""

    stage: str | UUID  #: title or UUID, as declared
    function: Callable[..., Any]
    options: StageOptions
    agent: Agent

    @property
    def identity(self) -> str | UUID:
        """The stage, as encord-agents calls it."""
        return self.stage

    @property
    def callable(self) -> Callable[..., Any]:
        """The function, as encord-agents calls it."""
        return self.function

    def agent_for(self, task: object) -> Agent:
        """Return what is executed: with ``bind=True`` the first argument of the user's function is *task*."""
        return replace(self.agent, plan=self.agent.plan.bound_to(task)) if self.options.bind else self.agent


def declared(stage: str | UUID, function: Callable[..., Any], options: StageOptions) -> StageAgent:
    """Return *function* as the agent of *stage*, with all that is needed to execute it.

    Raises:
        DeclarationError: A parameter of *function* cannot be injected.
    """
    agent = Agent(
        stage=stage,
        plan=plan(
            function,
            PROVIDERS.keys(),
            shared=SHARED.keys(),
            skip=1 if options.bind else 0,
            batched=options.batched,
        ),
        retry=options.retry,
        label_row_options=options.label_row_options,
        initialise_options=options.initialise_options,
        will_set_priority=options.will_set_priority,
        deferred_saves=options.deferred_saves,
        commit_every=options.commit_every,
        commit_interval=options.commit_interval,
        concurrency=options.concurrency,
        is_batched=options.batched,
        list_size=options.list_size,
    )
    return StageAgent(stage, function, options, agent)


def project_uuid(project_hash: str | UUID) -> UUID:
    """Return a project hash as a UUID; DeclarationError where it is none."""
    try:
        return UUID(str(project_hash))
    except ValueError:
        raise DeclarationError(
            f"project_hash={project_hash!r} is not a UUID; it is the long id in the project's address on Encord."
        ) from None


def stage_identity(stage: str | UUID) -> str | UUID:
    """Return what a stage is known by: its UUID, or else its title; DeclarationError where it is neither."""
    if not isinstance(cast("object", stage), str | UUID) or not stage:
        raise DeclarationError(f"stage({stage!r}): give the agent stage's title or UUID.")
    try:
        return UUID(str(stage))
    except ValueError:
        return str(stage)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of *function* for people; of a callable object that of its class."""
    return getattr(function, "__name__", type(function).__name__)
