"""Which way an agent is called."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Protocol

from celery_agents.agent import Agent
from celery_agents.calling.at_once import in_threads, on_the_loop
from celery_agents.calling.in_lists import in_lists
from celery_agents.calling.one_by_one import one_by_one
from celery_agents.calling.turns import Calls, Turns
from celery_agents.work import Work


class Way(Protocol):
    """Calls an agent for all agent tasks of a batch; see the package."""

    def __call__(self, works: Iterable[Work], calls: Calls, turns: Turns, /) -> None:
        """Call the agent for *works*, in their order, as far as *turns* allows."""
        ...


def choose(agent: Agent, *, is_careful: bool) -> Way:
    """Return the way to call *agent*.

    Where an earlier delivery of the message has died, each agent task is alone: if this one dies as well, it is known
    of which.
    """
    at_once = 1 if is_careful else agent.at_once
    if agent.is_batched:
        return partial(in_lists, size=1 if is_careful else agent.list_size, at_once=at_once)
    if agent.plan.is_async:
        return partial(on_the_loop, at_once=at_once)
    return partial(in_threads, at_once=at_once) if at_once > 1 else one_by_one
