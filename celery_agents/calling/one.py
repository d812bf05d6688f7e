"""Call an agent for one agent task, and note its answer; what it raises is that agent task's failure."""

from __future__ import annotations

import inspect
from typing import Any

from celery_agents import loop
from celery_agents.agent import accept
from celery_agents.calling.turns import Calls
from celery_agents.dependencies import ahead
from celery_agents.dependencies.resolve import CleanUpOnLoop, clean_up_after, resolve, resolve_on_loop
from celery_agents.work import Work


def run(work: Work, calls: Calls) -> None:
    """Call the agent on this thread."""
    plan = calls.agent.plan
    try:
        with calls.watch.limit([work]), clean_up_after(plan) as stack:
            returned = awaited(plan.function(**resolve(plan, work.values, stack)))
    except (Exception, SystemExit) as error:
        note_failure(work, error)
    else:
        accept(work, returned, calls.stage)


async def run_on_loop(work: Work, calls: Calls) -> None:
    """Call an agent that is a coroutine."""
    plan = calls.agent.plan
    try:
        with calls.watch.limit_on_loop(work):
            async with CleanUpOnLoop() as stack:
                returned = await plan.function(**await resolve_on_loop(plan, work.values, stack))
    except BaseException as error:
        # No signal raises anything on this thread: what would end asyncio's task, or all of its loop, is the agent's.
        note_failure(work, error)
    else:
        accept(work, returned, calls.stage)


def awaited(returned: Any) -> Any:
    """Return what an agent returned, waiting for it where that is a coroutine after all, wrapped in a function."""
    return loop.run(returned) if inspect.iscoroutine(returned) else returned


def note_failure(work: Work, error: BaseException) -> None:
    """Note what the agent raised; raise it again where that ends this process.

    An agent task that has failed already was given up, see ``at_once``, and its agent has come back late.
    """
    if comes_from_a_signal(error):
        raise error
    ahead.leave(work.values)
    if work.is_open:
        work.fail(error, "agent")


def comes_from_a_signal(error: BaseException) -> bool:
    """Whether *error* is the pool ending this process, rather than the agent calling ``sys.exit``."""
    if not isinstance(error, SystemExit):
        return False
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = str(place.tb_frame.f_globals.get("__name__", "")) if place is not None else ""
    return module.split(".")[0] in ("billiard", "celery")
