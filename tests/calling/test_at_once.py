"""Several agent tasks at once: in threads, and as coroutines on the process's event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask

from celery_agents import Depends, Outcome, TaskAgentReturnStruct, loop
from celery_agents.delivery import Unledgered
from celery_agents.retries import RetryPolicy
from celery_agents.supervision import Supervision
from celery_agents.watch import Limits
from celery_agents.work import Work
from tests import servers
from tests.execution.agents import FORWARD, save
from tests.execution.conftest import Bench, StoppedWhen

from .conftest import number_of, run


class Meeting:
    """Where agents wait until so many are there at once; more than that are never seen."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.present = self.most = 0
        self._lock = threading.Lock()

    @contextmanager
    def attended(self) -> Iterator[None]:
        with self._lock:
            self.present += 1
            self.most = max(self.most, self.present)
        try:
            yield
        finally:
            with self._lock:
                self.present -= 1

    def is_full(self) -> bool:
        return self.most == self.size


def test_as_many_threads_as_are_asked_for(bench: Bench) -> None:
    meeting = Meeting(4)
    full = threading.Event()

    def agent(task: AgentTask) -> str:
        with meeting.attended():
            if meeting.is_full():
                full.set()
            assert full.wait(30)
        return FORWARD

    execution = run(bench, agent, concurrency=4)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    assert meeting.most == 4


@pytest.mark.parametrize(("concurrency", "expected"), [(None, 10), (3, 3), (1, 1)])
def test_as_many_coroutines_as_are_asked_for(bench: Bench, concurrency: int | None, expected: int) -> None:
    """Sixteen unless the stage says otherwise, and there are ten agent tasks."""
    meeting = Meeting(expected)

    async def agent(task: AgentTask) -> str:
        with meeting.attended():
            await asyncio.to_thread(servers.until, meeting.is_full, "all that may be here at once are here")
        return FORWARD

    execution = run(bench, agent, concurrency=concurrency)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    assert meeting.most == expected


def test_unless_asked_an_agent_stays_on_the_thread_that_executes(bench: Bench) -> None:
    seen = set()

    def agent(task: AgentTask) -> str:
        seen.add(threading.current_thread())
        return FORWARD

    run(bench, agent)
    assert seen == {threading.current_thread()}


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_what_is_injected_is_each_agent_tasks_own(bench: Bench, kind: str) -> None:
    def own(task: AgentTask) -> list[AgentTask]:
        return [task]

    seen: list[int] = []

    def check(task: AgentTask, row: LabelRowV2, mine: list[AgentTask]) -> TaskAgentReturnStruct:
        assert (str(task.data_hash), mine) == (row.data_hash, [task])
        seen.append(id(mine))
        return save(task, row)

    def in_threads(
        task: AgentTask, row: LabelRowV2, mine: Annotated[Any, Depends(own)]
    ) -> TaskAgentReturnStruct:
        return check(task, row, mine)

    async def coroutine(
        task: AgentTask, row: LabelRowV2, mine: Annotated[Any, Depends(own)]
    ) -> TaskAgentReturnStruct:
        await asyncio.sleep(0)
        return check(task, row, mine)

    execution = run(bench, in_threads if kind == "threads" else coroutine, concurrency=8)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}
    assert len(seen) == 10
    assert len(bench.sandbox.audit.records("labels.save", accepted=True)) == 10


variable = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_context_variables_of_the_caller_are_seen(bench: Bench, kind: str) -> None:
    """Tracing and logging hang their ids on those."""
    seen = set()

    def in_threads(task: AgentTask) -> str:
        seen.add(variable.get())
        return FORWARD

    async def coroutine(task: AgentTask) -> str:
        return in_threads(task)

    token = variable.set("of the message")
    run(bench, in_threads if kind == "threads" else coroutine, concurrency=4)
    variable.reset(token)
    assert seen == {"of the message"}


# --- Coroutines


def test_all_coroutines_of_a_process_have_one_loop(bench: Bench) -> None:
    """A session that was opened for one message is of use to the next."""
    loops = set()

    async def agent(task: AgentTask) -> str:
        loops.add(asyncio.get_running_loop())
        return FORWARD

    run(bench, agent)
    run(bench, agent)
    assert len(loops) == 1


def test_a_loop_that_runs_already_is_not_in_the_way(bench: Bench) -> None:
    """A notebook's and FastAPI's run, and a direct call of theirs waits on their thread."""

    async def agent(task: AgentTask) -> str:
        await asyncio.sleep(0)
        return FORWARD

    async def notebook() -> Any:
        return run(bench, agent)

    execution = asyncio.run(notebook())
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_a_coroutine_function_may_be_wrapped_in_a_plain_one(bench: Bench) -> None:
    @traced
    async def agent(task: AgentTask) -> str:
        await asyncio.sleep(0)
        return FORWARD

    execution = run(bench, agent)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}


@pytest.mark.parametrize("kind", ["coroutine", "function"])
def test_either_kind_of_agent_has_either_kind_of_dependency(bench: Bench, kind: str) -> None:
    events: list[str] = []

    def thread() -> str:
        return "loop" if threading.current_thread() is loop._started()[1] else "thread"

    async def awaited(task: AgentTask) -> str:
        await asyncio.sleep(0)
        return f"awaited on {thread()}"

    async def opened(before: Annotated[str, Depends(awaited)]) -> AsyncIterator[str]:
        events.append(f"open on {thread()} after {before}")
        try:
            yield "opened"
        finally:
            events.append(f"close on {thread()}")

    def called(before: Annotated[str, Depends(opened)]) -> Iterator[str]:
        events.append(f"enter in {thread()} after {before}")
        yield "called"
        events.append(f"leave in {thread()}")

    def plain(before: Annotated[str, Depends(called)]) -> str:
        return f"plain in {thread()} after {before}"

    def function(x: Annotated[str, Depends(plain)], again: Annotated[str, Depends(awaited)]) -> str:
        events.append(x)
        return FORWARD

    async def coroutine(x: Annotated[str, Depends(plain)], again: Annotated[str, Depends(awaited)]) -> str:
        return function(x, again)

    outcomes = run(bench, function if kind == "function" else coroutine, specs=bench.specs[:1]).outcomes
    assert [each.outcome for each in outcomes] == [Outcome.PROCEEDED]
    assert events == [
        "open on loop after awaited on loop",
        "enter in thread after opened",
        "plain in thread after called",
        "leave in thread",
        "close on loop",
    ]


@pytest.mark.parametrize("is_async", [False, True])
def test_clean_ups_see_what_the_agent_raised_and_cannot_hide_it(bench: Bench, is_async: bool) -> None:
    seen: list[str] = []

    async def on_loop() -> AsyncIterator[int]:
        try:
            yield 1
        except ValueError as error:
            seen.append(f"on the loop: {error}")

    def in_thread() -> Iterator[int]:
        try:
            yield 1
        except ValueError as error:
            seen.append(f"in a thread: {error}")

    async def agent(task: AgentTask, x: Annotated[int, Depends(on_loop if is_async else in_thread)]) -> str:
        if number_of(bench, task) == 3:
            raise ValueError("no weights")
        return FORWARD

    outcomes = run(bench, agent).outcomes
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 9, Outcome.FAILED: 1}
    assert seen == ["on the loop: no weights" if is_async else "in a thread: no weights"]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_ends_a_task_of_asyncio_ends_one_agent_task(bench: Bench, error: BaseException) -> None:
    async def agent(task: AgentTask) -> str:
        if number_of(bench, task) == 3:
            raise error
        return FORWARD

    outcomes = run(bench, agent).outcomes
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 9, Outcome.FAILED: 1}


def test_what_an_agent_leaves_running_cannot_end_the_loop(bench: Bench) -> None:
    async def exit_later() -> None:
        sys.exit("in the background")

    async def agent(task: AgentTask) -> str:
        background = asyncio.ensure_future(exit_later())
        await asyncio.wait([background])
        assert isinstance(background.exception(), SystemExit)
        return FORWARD

    execution = run(bench, agent, concurrency=2)
    assert Counter(each.outcome for each in execution.outcomes) == {Outcome.PROCEEDED: 10}


def test_an_agent_that_would_wait_for_its_own_loop_is_told_so(bench: Bench) -> None:
    async def nothing() -> None: ...

    async def agent(task: AgentTask) -> str:
        loop.run(nothing())
        return FORWARD

    (outcome,) = run(bench, agent, specs=bench.specs[:1]).outcomes
    assert outcome.error is not None
    assert "waits for the loop that it runs on" in outcome.error.detail


# --- Time limits


def limited(soft: float) -> Supervision:
    return Supervision("message", Unledgered(), limits=Limits(soft=soft))


def test_the_soft_limit_interrupts_the_one_coroutine_that_is_late(bench: Bench) -> None:
    async def agent(task: AgentTask) -> str:
        if number_of(bench, task) == 3:
            await asyncio.sleep(60)
        return FORWARD

    outcomes = run(bench, agent, watch=limited(0.1)).outcomes
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 9, Outcome.FAILED: 1}
    error = outcomes[3].error
    assert error is not None
    assert error.type == "celery_agents.errors.TimedOutError"
    assert error.detail == "TIMED_OUT: it took longer than its soft_time_limit of 0.1 s."
    assert "in agent" in (error.traceback or "")


def test_a_coroutine_may_still_answer_when_it_is_interrupted(bench: Bench) -> None:
    async def agent(task: AgentTask) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return FORWARD
        return "late"

    outcomes = run(bench, agent, specs=bench.specs[:2], watch=limited(0.1)).outcomes
    assert [each.outcome for each in outcomes] == [Outcome.PROCEEDED] * 2


def test_autoretry_for_names_the_same_error_as_elsewhere(bench: Bench) -> None:
    async def agent(task: AgentTask) -> str:
        await asyncio.sleep(60)
        return FORWARD

    retry = RetryPolicy(autoretry_for=(SoftTimeLimitExceeded,), retry_jitter=False)
    execution = run(bench, agent, specs=bench.specs[:1], watch=limited(0.1), retry=retry)
    assert (execution.outcomes, len(execution.again)) == ([], 1)


def test_what_was_entered_in_a_thread_meanwhile_is_left(bench: Bench) -> None:
    """A download that takes too long cannot be interrupted; its file is removed all the same."""
    limits: list[Any] = []
    events: list[str] = []

    class Watch(Supervision):
        def limit_on_loop(self, work: Work) -> Any:
            limits.append(super().limit_on_loop(work))
            return limits[-1]

    def slow_download() -> Iterator[int]:
        servers.until(lambda: limits[0].is_interrupted, "the limit has passed")
        events.append("entered")
        try:
            yield 1
        finally:
            events.append("left")

    async def agent(x: Annotated[int, Depends(slow_download)]) -> str:
        events.append("called")
        return FORWARD

    watch = Watch("message", Unledgered(), limits=Limits(soft=0.1))
    (outcome,) = run(bench, agent, specs=bench.specs[:1], watch=watch).outcomes
    assert outcome.error is not None
    assert outcome.error.type == "celery_agents.errors.TimedOutError"
    assert events == ["entered", "left"]


# --- The thread that waits is interrupted


class InterruptionError(Exception):
    """What a signal raises in this thread, as Celery's own time limit does."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Interrupts the main thread."""

    def raise_it(number: int, frame: Any) -> None:
        raise InterruptionError("the message took too long")

    before = signal.signal(signal.SIGUSR2, raise_it)
    yield lambda: os.kill(os.getpid(), signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("kind", ["threads", "coroutines"])
def test_what_is_at_work_when_the_message_is_interrupted_failed(
    bench: Bench, kind: str, interrupt: Callable[[], None]
) -> None:
    """Two are at work; those before them are committed, those after them go round again."""
    two_at_work = threading.Barrier(2, action=interrupt)
    over = threading.Event()
    is_interrupted = []

    def in_threads(task: AgentTask) -> str:
        if number_of(bench, task) in (3, 4):
            is_interrupted.append(True)
            two_at_work.wait(30)
            over.wait(30)
        return FORWARD

    async def coroutine(task: AgentTask) -> str:
        return await asyncio.to_thread(in_threads, task)

    watch = StoppedWhen(lambda: len(is_interrupted) == 2)
    execution = run(bench, in_threads if kind == "threads" else coroutine, concurrency=2, watch=watch)
    over.set()
    kinds = Counter(each.outcome for each in execution.outcomes)
    assert kinds == {Outcome.PROCEEDED: 3, Outcome.FAILED: 2}
    assert {each.error.detail for each in execution.outcomes if each.error} == {"the message took too long"}
    assert len(execution.again) == 5
    assert sum(bench.moves().values()) == 3
