"""Call an agent with lists, for many agent tasks at once. What goes wrong with one of them is its own failure still."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from celery_agents.agent import accept
from celery_agents.calling.one import awaited, comes_from_a_signal, note_failure
from celery_agents.calling.turns import Calls, Turns
from celery_agents.dependencies.plan import Plan
from celery_agents.dependencies.resolve import CleanUp, resolve
from celery_agents.errors import AnswerError
from celery_agents.messages import Step
from celery_agents.work import Failure, Work


@dataclass(slots=True, eq=False)
class _Entry:
    """One agent task in a list: its own arguments, once it has them, and what is to be cleaned up after it."""

    work: Work
    arguments: dict[str, Any] | None = None
    clean_up: CleanUp = field(default_factory=CleanUp)


def in_lists(works: Iterable[Work], calls: Calls, turns: Turns, *, size: int, at_once: int) -> None:
    """Call the agent with lists of *size* at most, whose elements *at_once* threads get from its dependencies."""
    waiting = iter(works)
    while some := list(islice(waiting, size)):
        if not turns.may_begin(some):
            return
        _run(some, calls, at_once)
        turns.end(some)


def _run(works: Sequence[Work], calls: Calls, at_once: int) -> None:
    entries = [_Entry(work) for work in works]
    try:
        _prepare_all(entries, calls, at_once)
        # One whose dependency failed is in no list, and keeps nobody from the others.
        ready = [entry for entry in entries if entry.arguments is not None]
        answers = _call(ready, calls) if ready else []
        for entry, answer in reversed(list(zip(ready, answers, strict=True))):
            _conclude(entry, answer, calls)
    finally:
        for entry in entries:
            entry.clean_up.close()  # only where this thread was interrupted there is something left


def _prepare_all(entries: Sequence[_Entry], calls: Calls, at_once: int) -> None:
    if at_once == 1:
        for entry in entries:
            _prepare(entry, calls)
        return
    with ThreadPoolExecutor(at_once, thread_name_prefix="agent") as pool:
        for future in [pool.submit(copy_context().run, _prepare, entry, calls) for entry in entries]:
            future.result()


def _prepare(entry: _Entry, calls: Calls) -> None:
    try:
        with calls.watch.limit([entry.work]), CleanUp() as stack:
            entry.arguments = resolve(calls.agent.plan, entry.work.values, stack)
            entry.clean_up = stack.pop_all()
    except (Exception, SystemExit) as error:
        note_failure(entry.work, error)


def _call(entries: Sequence[_Entry], calls: Calls) -> list[Any]:
    """Return one answer for each of *entries*, or what went wrong with it."""
    plan = calls.agent.plan
    step: Step = "agent"
    try:
        with calls.watch.limit([entry.work for entry in entries]):
            returned = awaited(plan.function(**_lists(plan, entries)))
        step = "answer"
        _check(returned, len(entries))
    except (Exception, SystemExit) as error:
        if comes_from_a_signal(error):
            raise
        return [Failure(error, step)] * len(entries)
    return [Failure(answer, "agent") if isinstance(answer, BaseException) else answer for answer in returned]


def _lists(plan: Plan, entries: Sequence[_Entry]) -> dict[str, Any]:
    rows = [entry.arguments or {} for entry in entries]
    return {
        argument.name: [row[argument.name] for row in rows] if argument.is_list else rows[0][argument.name]
        for argument in plan.arguments
    }


def _check(returned: Any, number: int) -> None:
    if not isinstance(returned, list):
        raise AnswerError(
            f"The agent was called with lists of {number} (batched=True) and returned {type(returned).__name__}: "
            "return a list with one answer for each agent task, in the same order."
        )
    if len(returned) != number:
        raise AnswerError(
            f"The agent was called with lists of {number} and returned a list of {len(returned)}, so nobody knows "
            "which answer is for which agent task: return one for each, None or an exception where there is none."
        )


def _conclude(entry: _Entry, answer: Any, calls: Calls) -> None:
    """Clean up after one agent task, and note its answer."""
    raised = answer.error if isinstance(answer, Failure) and answer.step == "agent" else None
    try:
        with calls.watch.limit([entry.work]):
            entry.clean_up.__exit__(type(raised) if raised else None, raised, None)
    except (Exception, SystemExit) as error:
        note_failure(entry.work, error)
    else:
        if isinstance(answer, Failure):
            entry.work.fail(answer.error, answer.step)
        else:
            accept(entry.work, answer, calls.stage)
