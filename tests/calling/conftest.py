"""The executor run on a sandbox, as in ``tests.execution``, for agents that are called in each way that there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from encord.workflow.stages.agent import AgentTask

from celery_agents import loop
from celery_agents.agent import Agent
from celery_agents.batch import Batch, Execution
from celery_agents.delivery import Delivery
from celery_agents.dependencies import resources
from celery_agents.dependencies.plan import plan
from celery_agents.executor import execute
from celery_agents.messages import Carry, TaskSpec
from celery_agents.providers import PROVIDERS, SHARED
from celery_agents.retries import RetryPolicy
from celery_agents.watch import Watch
from tests.execution.conftest import STAGE, Bench, bench

__all__ = ["bench"]

#: What a test's agent answers for one agent task.
Answer: TypeAlias = Callable[[AgentTask], Any]

#: The ways of calling an agent, as options of a stage; ``like_a_coroutine`` and the others write the agents.
WAYS: dict[str, dict[str, Any]] = {
    "one_by_one": {},
    "in_threads": {"concurrency": 4},
    "on_the_loop": {"concurrency": 4},
    "in_lists": {"is_batched": True, "list_size": 4},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each way in turn."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    """What a test keeps for the process is cleaned up after it."""
    yield
    resources.close()
    assert loop._running is None


def agent_of(way: str, answer: Answer) -> Callable[..., Any]:
    """Write *answer* as the agent of a way."""

    def plain(task: AgentTask) -> Any:
        return answer(task)

    async def coroutine(task: AgentTask) -> Any:
        await asyncio.sleep(0)
        return answer(task)

    def with_lists(tasks: list[AgentTask]) -> list[Any]:
        return [answer_or_exception(answer, task) for task in tasks]

    written: dict[str, Callable[..., Any]] = {"on_the_loop": coroutine, "in_lists": with_lists}
    return written.get(way, plain)


def answer_or_exception(answer: Answer, task: AgentTask) -> Any:
    try:
        return answer(task)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (that is how an agent with lists says so)
        return error


def run(
    bench: Bench,
    function: Callable[..., Any],
    *,
    specs: list[str] | None = None,
    carry: Carry | None = None,
    report: Callable[[int, int], None] = lambda done, failed: None,
    delivery: Delivery | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> Execution:
    """Execute the bench's specs with *function* as the agent."""
    planned = plan(function, PROVIDERS.keys(), shared=SHARED.keys(), batched=options.get("is_batched", False))
    agent = Agent(stage=STAGE, plan=planned, **{"retry": RetryPolicy(retry_jitter=False), **options})
    batch = Batch(bench.specs if specs is None else specs, carry or Carry())
    return execute(batch, agent, bench.gateway, report, delivery=delivery, watch=watch)


def run_in(way: str, bench: Bench, answer: Answer, **options: Any) -> Execution:
    """Execute the bench's specs with an agent of *way*."""
    return run(bench, agent_of(way, answer), **{**WAYS[way], **options})


def number_of(bench: Bench, task: AgentTask) -> int:
    """Return which of the bench's specs *task* is."""
    return [TaskSpec.decode(spec).uuid for spec in bench.specs].index(task.uuid)
