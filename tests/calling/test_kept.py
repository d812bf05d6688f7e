"""``Depends(…, scope="worker")``: loaded once for the process, kept, and cleaned up when it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Annotated, Any

import pytest
from encord.project import Project
from encord.workflow.stages.agent import AgentTask

from celery_agents import Depends, Outcome, loop
from celery_agents.dependencies import resources
from celery_agents.dependencies.plan import plan
from celery_agents.dependencies.resolve import _obtain_kept_on_loop, obtain_kept
from celery_agents.providers import PROVIDERS, SHARED
from tests import servers
from tests.execution.agents import FORWARD
from tests.execution.conftest import Bench

from .conftest import run

DONE = {Outcome.PROCEEDED: 10}


class Model:
    """Something that is worth to be kept."""


@pytest.mark.parametrize("options", [{}, {"concurrency": 8}], ids=["one by one", "in threads"])
def test_it_is_loaded_once_for_all_messages_and_threads(bench: Bench, options: dict[str, Any]) -> None:
    loaded: list[Model] = []
    seen = set()

    def load_model() -> Model:
        loaded.append(Model())
        return loaded[-1]

    def agent(task: AgentTask, model: Annotated[Model, Depends(load_model, scope="worker")]) -> str:
        seen.add(model)
        return FORWARD

    for specs in (bench.specs[:5], bench.specs[5:]):
        run(bench, agent, specs=specs, **options)
    assert seen == {*loaded}
    assert len(loaded) == 1
    assert sum(bench.moves().values()) == 10


def test_threads_that_ask_at_once_wait_for_the_one_that_loads() -> None:
    loading, loaded, got = threading.Event(), list[Model](), list[Model]()

    def load(stack: ExitStack) -> Model:
        loading.set()
        servers.until(lambda: is_in(second, "obtain"), "the second thread asks, too")
        loaded.append(Model())
        return loaded[-1]

    def ask() -> None:
        got.append(resources.of_process().obtain("key", (), load))

    first, second = threading.Thread(target=ask), threading.Thread(target=ask)
    first.start()
    assert loading.wait(30)
    second.start()
    first.join()
    second.join()
    assert got == loaded * 2


def is_in(thread: threading.Thread, function: str) -> bool:
    """Whether *thread* waits in this function."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == function


def test_it_is_cleaned_up_at_the_end_the_last_loaded_first(bench: Bench) -> None:
    events: list[str] = []

    def connect() -> Iterator[str]:
        yield "connection"
        events.append("disconnected")

    def load_model(connection: Annotated[str, Depends(connect, scope="worker")]) -> Iterator[str]:
        yield f"model over {connection}"
        events.append("unloaded")

    def agent(task: AgentTask, model: Annotated[str, Depends(load_model, scope="worker")]) -> str:
        events.append(model)
        return FORWARD

    run(bench, agent, specs=bench.specs[:2])
    assert events == ["model over connection"] * 2
    resources.close()
    assert events[2:] == ["unloaded", "disconnected"]
    resources.close()
    assert len(events) == 4


def test_trouble_with_one_clean_up_keeps_no_other(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []

    def first() -> Iterator[int]:
        yield 1
        events.append("first")

    def second() -> Iterator[int]:
        yield 2
        raise OSError("no such file")

    def agent(
        a: Annotated[int, Depends(first, scope="worker")], b: Annotated[int, Depends(second, scope="worker")]
    ) -> str:
        return FORWARD

    run(bench, agent)
    resources.close()
    assert events == ["first"]
    assert "could not be cleaned up" in caplog.text


def test_what_fails_to_load_is_tried_again_by_the_next_agent_task(bench: Bench) -> None:
    attempts: list[int] = []
    opened: list[str] = []

    def open_file() -> Iterator[int]:
        opened.append("opened")
        try:
            yield 1
        finally:
            opened.append("closed")

    def load_model(file: Annotated[int, Depends(open_file)]) -> Model:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("the model store is away")
        return Model()

    def agent(task: AgentTask, model: Annotated[Model, Depends(load_model, scope="worker")]) -> str:
        return FORWARD

    outcomes = run(bench, agent).outcomes
    assert Counter(each.outcome for each in outcomes) == {Outcome.FAILED: 2, Outcome.PROCEEDED: 8}
    assert {each.error.detail for each in outcomes if each.error} == {"the model store is away"}
    assert len(attempts) == 3
    assert opened == ["opened", "closed", "opened", "closed", "opened"]


def test_it_is_one_for_all_stages_and_one_for_each_project_that_it_needs(bench: Bench) -> None:
    loaded: list[Any] = []

    def of_project(project: Project) -> Model:
        loaded.append(project)
        return Model()

    def of_all() -> Model:
        loaded.append(None)
        return Model()

    def first(
        task: AgentTask,
        a: Annotated[Model, Depends(of_project, scope="worker")],
        b: Annotated[Model, Depends(of_all, scope="worker")],
    ) -> None: ...

    def second(
        a: Annotated[Model, Depends(of_project, scope="worker")],
        b: Annotated[Model, Depends(of_all, scope="worker")],
    ) -> None: ...

    run(bench, first)
    run(bench, second)
    assert loaded == [bench.gateway.project, None]
    other = object()
    planned = plan(second, PROVIDERS, shared=SHARED)
    (a, b) = (argument.source for argument in planned.arguments)
    obtain_kept(a, {"encord.project.Project": other})  # type: ignore[arg-type]
    obtain_kept(b, {})  # type: ignore[arg-type]
    assert loaded == [bench.gateway.project, None, other]


def test_without_the_scope_it_is_loaded_for_each_agent_task(bench: Bench) -> None:
    loaded = []

    def load_model() -> Model:
        loaded.append(Model())
        return loaded[-1]

    def agent(
        task: AgentTask,
        own: Annotated[Model, Depends(load_model)],
        kept: Annotated[Model, Depends(load_model, scope="worker")],
    ) -> str:
        assert own is not kept
        return FORWARD

    assert Counter(each.outcome for each in run(bench, agent).outcomes) == DONE
    assert len(loaded) == 11


def test_lists_have_it_once(bench: Bench) -> None:
    def load_names() -> list[str]:
        return ["car", "bicycle"]

    def agent(
        tasks: list[AgentTask], names: Annotated[list[str], Depends(load_names, scope="worker")]
    ) -> list[str]:
        assert names == ["car", "bicycle"]
        return [FORWARD] * len(tasks)

    assert Counter(each.outcome for each in run(bench, agent, is_batched=True).outcomes) == DONE


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_a_session_lives_on_one_loop_and_is_closed_there(bench: Bench, kind: str) -> None:
    loops: list[Any] = []

    async def open_session() -> AsyncIterator[str]:
        loops.append(asyncio.get_running_loop())
        yield "session"
        loops.append(asyncio.get_running_loop())

    def function(task: AgentTask, session: Annotated[str, Depends(open_session, scope="worker")]) -> str:
        assert session == "session"
        return FORWARD

    async def coroutine(
        task: AgentTask, session: Annotated[str, Depends(open_session, scope="worker")]
    ) -> str:
        loops.append(asyncio.get_running_loop())
        return FORWARD

    outcomes = run(bench, function if kind == "function" else coroutine).outcomes
    assert Counter(each.outcome for each in outcomes) == DONE
    resources.close()
    assert len(loops) == (2 if kind == "function" else 12)
    assert len(set(loops)) == 1


def test_coroutines_that_wait_for_one_to_be_loaded_are_not_in_its_way(bench: Bench) -> None:
    """More of them than the loop has threads, and loading needs such a thread."""
    loaded: list[Model] = []

    async def load_model() -> Model:
        await asyncio.to_thread(lambda: loaded.append(Model()))
        return loaded[-1]

    async def ask(task: AgentTask, model: Annotated[Model, Depends(load_model, scope="worker")]) -> str:
        return FORWARD

    planned = plan(ask, PROVIDERS, shared=SHARED)

    async def many() -> set[Any]:
        source: Any = planned.arguments[1].source
        return set(await asyncio.gather(*(_obtain_kept_on_loop(source, {}) for _ in range(200))))

    assert loop.run(asyncio.wait_for(many(), 30)) == {*loaded}
    assert len(loaded) == 1


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12 and later
def test_a_fork_loads_its_own_and_leaves_its_parents_alone(bench: Bench) -> None:
    events: list[str] = []

    def load_model() -> Iterator[int]:
        try:
            yield os.getpid()
        finally:
            events.append("unloaded")

    def agent(model: Annotated[int, Depends(load_model, scope="worker")]) -> str:
        return FORWARD

    source: Any = plan(agent, PROVIDERS, shared=SHARED).arguments[0].source
    assert obtain_kept(source, {}) == os.getpid()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        own = obtain_kept(source, {}) == os.getpid()
        resources.close()
        gc.collect()
        os.write(writing, f"{own} {events}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode() == "True ['unloaded']"
    assert events == []
