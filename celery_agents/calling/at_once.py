"""Call an agent for several agent tasks at a time. This thread begins them, waits, and commits meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from typing import TypeAlias

from celery_agents import loop
from celery_agents.calling.one import run, run_on_loop
from celery_agents.calling.turns import Calls, Turns
from celery_agents.work import Work

#: Calls the agent for one agent task, somewhere else than on this thread.
Begin: TypeAlias = "Callable[[Work], Future[None]]"


def in_threads(works: Iterable[Work], calls: Calls, turns: Turns, *, at_once: int) -> None:
    """Call the agent in so many threads; what each agent task is given is its own."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="agent")
    try:
        _overlap(works, at_once, turns, lambda work: pool.submit(copy_context().run, run, work, calls))
    finally:
        # There is nothing to wait for, unless this thread was interrupted: then threads are left behind.
        pool.shutdown(wait=False, cancel_futures=True)


def on_the_loop(works: Iterable[Work], calls: Calls, turns: Turns, *, at_once: int) -> None:
    """Call an agent that is a coroutine, so many at a time on the process's event loop."""
    _overlap(
        works,
        at_once,
        turns,
        lambda work: asyncio.run_coroutine_threadsafe(run_on_loop(work, calls), loop.loop()),
    )


def _overlap(works: Iterable[Work], at_once: int, turns: Turns, begin: Begin) -> None:
    running: dict[Future[None], Work] = {}
    through: SimpleQueue[Future[None]] = SimpleQueue()
    try:
        for work in works:
            while len(running) == at_once:
                _take_one_back(running, through, turns)
            if not turns.may_begin([work]):
                break
            future = begin(work)
            running[future] = work
            future.add_done_callback(through.put)
        while running:
            turns.catch_up()
            _take_one_back(running, through, turns)
    finally:
        for future in running:  # this thread was interrupted
            future.cancel()


def _take_one_back(
    running: dict[Future[None], Work], through: SimpleQueue[Future[None]], turns: Turns
) -> None:
    try:
        future = through.get()
    except Exception as interruption:
        # It came by a signal, as the time limit of the message does: agents' own exceptions do not come this way.
        _give_up(running, interruption, turns)
    else:
        # None where it was given up before, and is late.
        if work := running.pop(future, None):
            future.result()
            turns.end([work])


def _give_up(running: dict[Future[None], Work], interruption: Exception, turns: Turns) -> None:
    """Let what is at work have failed. Coroutines are cancelled; threads cannot be, and what they answer is late."""
    for future, work in running.items():
        work.fail(interruption, "agent")
        future.cancel()
    turns.end(list(running.values()))
    running.clear()
