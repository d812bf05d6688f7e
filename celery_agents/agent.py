"""One agent: what is declared of it, and what its answer for one agent task means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery_agents import providers
from celery_agents.answers import read_answer
from celery_agents.dependencies.plan import Plan
from celery_agents.retries import RetryPolicy

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.messages import Step
    from celery_agents.work import Work

#: Agent tasks of one window that an ``async def`` agent is at together, unless the stage says otherwise. Waiting costs
#: nothing here, but whom it waits for has to bear it, from every process of every worker.
ASYNC_CONCURRENCY = 16
#: Agent tasks in one list, unless the stage says otherwise. Lists are made of what was loaded together.
LIST_SIZE = 100
#: Agent tasks that are answered and not committed at most, unless the stage says otherwise: those of three windows.
COMMIT_EVERY = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What is executed: the user's function for one stage, and how."""

    stage: str | UUID  #: title or UUID
    plan: Plan
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    label_row_options: Mapping[str, Any] = field(default_factory=dict)
    initialise_options: Mapping[str, Any] = field(default_factory=dict)
    will_set_priority: bool = False
    deferred_saves: bool = False  #: whether what it writes by itself waits for the commit
    commit_every: int = COMMIT_EVERY  #: agent tasks that may be answered and not committed
    commit_interval: float = 30.0  #: seconds
    concurrency: int | None = None  #: agent tasks at once; None: as the kind of function suggests
    is_batched: bool = False  #: whether it is called with lists
    list_size: int = LIST_SIZE  #: agent tasks in one of those, at most

    @property
    def needs_label_rows(self) -> bool:
        """Whether the label rows' metadata must be listed before the agent runs."""
        return self.will_set_priority or providers.needs_label_rows(self.plan.needs)

    @property
    def at_once(self) -> int:
        """How many agent tasks it may be at together. One, where it is no coroutine: on the process's main thread."""
        return self.concurrency or (ASYNC_CONCURRENCY if self.plan.is_async and not self.is_batched else 1)


def accept(work: Work, returned: Any, stage: AgentStage) -> None:
    """Note what the agent answered for one agent task; what is wrong with it is that one's own failure."""
    step: Step = "answer"
    try:
        answer = read_answer(returned, stage)
        chosen_by_bundle = work.staged.take_pathway() if work.has_staged else None
        if answer.pathway is None and chosen_by_bundle is not None:
            answer = read_answer(chosen_by_bundle, stage)
        step = "save"
        if answer.label_row is not None:
            answer.label_row.save(bundle=work.staged)
    except Exception as error:
        work.fail(error, step)
    else:
        work.pathway = answer.pathway
        work.priority = answer.priority
        work.is_moved_by_agent = work.has_staged and work.staged.has_moves
        work.is_answered = True
