"""One agent: what is declared of it, and calling it for one agent task."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery_agents import providers
from celery_agents.answers import read_answer
from celery_agents.dependencies.plan import Plan
from celery_agents.dependencies.resolve import resolve
from celery_agents.messages import Step
from celery_agents.retries import RetryPolicy
from celery_agents.work import Work

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What is executed: the user's function for one stage, and how."""

    stage: str | UUID  #: title or UUID
    plan: Plan
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    label_row_options: Mapping[str, Any] = field(default_factory=dict)
    initialise_options: Mapping[str, Any] = field(default_factory=dict)
    will_set_priority: bool = False
    commit_every: int = 100  #: agent tasks
    commit_interval: float = 30.0  #: seconds

    @property
    def needs_label_rows(self) -> bool:
        """Whether the label rows' metadata must be listed before the agent runs."""
        return self.will_set_priority or providers.needs_label_rows(self.plan.needs)


def run(work: Work, agent: Agent, stage: AgentStage, limit: AbstractContextManager[object]) -> None:
    """Call the agent for one agent task, within *limit*, and note its answer; what it raises is its own."""
    step: Step = "agent"
    try:
        with limit:
            returned = _call(agent.plan, work.values)
        step = "answer"
        answer = read_answer(returned, stage)
        chosen_by_bundle = work.staged.take_pathway()
        if answer.pathway is None and chosen_by_bundle is not None:
            answer = read_answer(chosen_by_bundle, stage)
        step = "save"
        if answer.label_row is not None:
            answer.label_row.save(bundle=work.staged)
    except SystemExit as stop:
        if _comes_from_a_signal(stop):
            raise
        work.fail(stop, step)
    except Exception as error:
        work.fail(error, step)
    else:
        work.pathway = answer.pathway
        work.priority = answer.priority
        work.is_moved_by_agent = work.staged.has_moves
        work.is_answered = True


def _call(plan: Plan, values: Mapping[str, Any]) -> Any:
    raised: BaseException | None = None
    with ExitStack() as stack:
        try:
            return plan.function(**resolve(plan, values, stack))
        except BaseException as error:
            raised = error
            raise
    # Only reached where the clean-up of a dependency swallowed what the agent raised: it failed all the same.
    raise raised


def _comes_from_a_signal(stop: SystemExit) -> bool:
    """Whether *stop* is the pool ending this process, rather than the agent calling ``sys.exit``."""
    place = stop.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = str(place.tb_frame.f_globals.get("__name__", "")) if place is not None else ""
    return module.split(".")[0] in ("billiard", "celery")
