"""Resolving: values, order, caching and clean-up for one agent task."""

# ruff: noqa: B008 - Depends as a default is one of the two styles that are tested

from __future__ import annotations

import functools
import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Annotated, Any

import pytest

import celery_agents.dependencies
from celery_agents.dependencies import Depends
from celery_agents.dependencies.plan import plan
from celery_agents.dependencies.resolve import resolve


class AgentTask:
    """Stands for the SDK's."""


TASK = f"{__name__}.AgentTask"


def run(agent: Callable[..., Any], values: dict[str, Any] | None = None) -> Any:
    """What the executor does for one agent task."""
    planned = plan(agent, [TASK])
    with ExitStack() as stack:
        return planned.function(**resolve(planned, values or {}, stack))


class Log(list[str]):
    """Makes generator dependencies that note when they are entered and left, and how."""

    def source(self, name: str, *, swallows: bool = False) -> Callable[[], Iterator[str]]:
        def generate() -> Iterator[str]:
            self.append(f"enter {name}")
            try:
                yield name
            except ValueError as error:
                self.append(f"{name} sees {error}")
                if not swallows:
                    raise
            finally:
                self.append(f"leave {name}")

        return generate


@pytest.fixture
def log() -> Log:
    return Log()


def test_provided_values_are_handed_on_by_name() -> None:
    def agent(task: AgentTask, again: AgentTask, kept: int = 3) -> Any:
        return task, again, kept

    task = AgentTask()
    assert run(agent, {TASK: task}) == (task, task, 3)


def test_only_what_is_needed_is_asked_for() -> None:
    def agent(kept: int = 3) -> int:
        return kept

    assert run(agent, {}) == 3


def test_dependencies_get_their_own_dependencies() -> None:
    def inner(task: AgentTask) -> list[Any]:
        return [task]

    def middle(x: Annotated[list[Any], Depends(inner)], task: AgentTask) -> list[Any]:
        return [*x, task]

    def agent(x: Any = Depends(middle)) -> Any:
        return x

    assert run(agent, {TASK: 7}) == [7, 7]


def test_classes_instances_methods_and_partials_are_called() -> None:
    class Model:
        def __init__(self, task: AgentTask) -> None:
            self.task = task

        def method(self, task: AgentTask) -> Any:
            return self.task, task

        def __call__(self) -> Iterator[Any]:
            yield self.task

    def add(task: Any, more: int) -> Any:
        return task + more

    add.__annotations__["task"] = AgentTask
    model = Model(1)  # type: ignore[arg-type]

    def agent(
        a: Annotated[Model, Depends()],
        b: Any = Depends(model.method),
        c: Any = Depends(functools.partial(add, more=3)),
        d: Any = Depends(model),
    ) -> Any:
        return a.task, b, c, d

    assert run(agent, {TASK: 2}) == (2, (1, 2), 5, 1)


def test_a_dependency_is_called_once_for_each_agent_task() -> None:
    count = itertools.count()

    def counted() -> int:
        return next(count)

    def middle(x: Annotated[int, Depends(counted)]) -> int:
        return x

    def agent(
        a: Annotated[int, Depends(counted)], b: Annotated[int, Depends(counted)], c: int = Depends(middle)
    ) -> Any:
        return a, b, c

    assert run(agent) == (0, 0, 0)
    planned = plan(agent, [])
    with ExitStack() as stack:
        assert resolve(planned, {}, stack) == {"a": 1, "b": 1, "c": 1}
    with ExitStack() as stack:
        assert resolve(planned, {}, stack) == {"a": 2, "b": 2, "c": 2}


def test_none_is_a_value_and_cached_like_any_other() -> None:
    calls = []

    def nothing() -> None:
        calls.append(1)

    def agent(a: Any = Depends(nothing), b: Any = Depends(nothing)) -> Any:
        return a, b

    assert run(agent) == (None, None)
    assert calls == [1]


def test_generators_are_left_in_reverse_order_after_the_agent(log: Log) -> None:
    first, second = log.source("first"), log.source("second")

    def third(x: Annotated[str, Depends(second)]) -> Iterator[str]:
        log.append(f"enter third with {x}")
        yield "third"
        log.append("leave third")

    def agent(a: Any = Depends(first), b: Any = Depends(third), c: Any = Depends(second)) -> None:
        log.append(f"agent {a} {b} {c}")

    run(agent)
    assert log == [
        "enter first",
        "enter second",
        "enter third with second",
        "agent first third second",
        "leave third",
        "leave second",
        "leave first",
    ]


def test_the_agents_exception_is_raised_in_the_generators(log: Log) -> None:
    def agent(a: Any = Depends(log.source("a")), b: Any = Depends(log.source("b"))) -> None:
        raise ValueError("trouble")

    with pytest.raises(ValueError, match="trouble"):
        run(agent)
    assert log == ["enter a", "enter b", "b sees trouble", "leave b", "a sees trouble", "leave a"]


def test_a_generator_may_swallow_it_as_a_context_manager_may(log: Log) -> None:
    def agent(a: Any = Depends(log.source("a")), b: Any = Depends(log.source("b", swallows=True))) -> None:
        raise ValueError("trouble")

    run(agent)
    assert log == ["enter a", "enter b", "b sees trouble", "leave b", "leave a"]


def test_what_was_entered_is_left_when_a_later_dependency_fails(log: Log) -> None:
    def fails() -> None:
        raise ValueError("no model")

    def agent(a: Any = Depends(log.source("a")), b: Any = Depends(fails)) -> None:
        log.append("never")

    with pytest.raises(ValueError, match="no model"):
        run(agent)
    assert log == ["enter a", "a sees no model", "leave a"]


def test_a_generator_that_does_not_yield_is_an_error() -> None:
    def empty() -> Iterator[int]:
        yield from ()

    def agent(a: Any = Depends(empty)) -> None: ...

    with pytest.raises(RuntimeError, match="didn't yield"):
        run(agent)


@pytest.mark.parametrize("seed", range(30))
def test_any_tree_is_built_once_bottom_up_and_taken_down_in_reverse(seed: int) -> None:
    """Random acyclic dependencies: each one reached is entered once, after its own, and left in reverse order."""
    choose = random.Random(seed)
    entered: list[int] = []
    left: list[int] = []
    below: list[list[int]] = []
    nodes: list[Callable[..., Any]] = []

    def make(number: int, needed: list[int]) -> Callable[..., Any]:
        arguments = ", ".join(f"n{i}=Depends(nodes[{i}])" for i in needed)
        scope = {"Depends": Depends, "nodes": nodes, "entered": entered, "left": left}
        # A signature per seed cannot be written down, so it is composed.
        exec(
            f"def node({arguments}):\n entered.append({number})\n yield {number}\n left.append({number})\n",
            scope,
        )
        return scope["node"]  # type: ignore[return-value]

    for number in range(choose.randint(1, 12)):
        below.append(choose.sample(range(number), choose.randint(0, min(number, 3))))
        nodes.append(make(number, below[number]))

    def agent(top: Any = Depends(nodes[-1])) -> Any:
        assert left == []
        return top

    def reach(number: int) -> set[int]:
        return {number}.union(*(reach(each) for each in below[number]))

    assert run(agent) == len(nodes) - 1
    assert sorted(entered) == sorted(reach(len(nodes) - 1))
    assert all(entered.index(low) < entered.index(number) for number in entered for low in below[number])
    assert left == entered[::-1]


def test_the_package_exports_what_it_says() -> None:
    assert all(hasattr(celery_agents.dependencies, name) for name in celery_agents.dependencies.__all__)


def test_importing_the_package_and_planning_import_nothing_heavy() -> None:
    script = """
import sys
from celery_agents.dependencies import *
from celery_agents.dependencies.plan import plan
from celery_agents.dependencies.resolve import resolve

def agent(frame=Depends(dep_single_frame), path=Depends(dep_asset), client=Depends(dep_client)): ...

assert len(plan(agent, ["encord.storage.StorageItem", "encord.user_client.EncordUserClient"]).needs) == 2
print(sorted({"encord", "numpy", "PIL", "av", "requests", "urllib3"} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
