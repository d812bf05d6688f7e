"""Planning: what may stand in a signature, and the sentence for what may not."""

# ruff: noqa: B008 - Depends as a default is one of the two styles that are tested

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest
from typing_extensions import TypeAliasType

from celery_agents.dependencies import Depends, dep_asset, dep_client, dep_single_frame, dep_storage_item
from celery_agents.dependencies.plan import Plan, plan
from celery_agents.errors import DeclarationError

if TYPE_CHECKING:
    import encord.project
    import encord.storage
    from encord import storage
    from encord.storage import StorageItem
    from numpy.typing import NDArray


class AgentTask:
    """Stands for the SDK's."""


class LabelRow:
    """Another injectable type."""

    class Nested:
        """Its dotted name has one dot more."""


class FrameData:
    """What encord-agents gives to editor agents only."""


TASK = f"{__name__}.AgentTask"
ROW = f"{__name__}.LabelRow"
ITEM = "encord.storage.StorageItem"
CLIENT = "encord.user_client.EncordUserClient"
PROVIDED = [TASK, ROW, ITEM, CLIENT]
CHOICES = "what can be: AgentTask, LabelRow, StorageItem, EncordUserClient by annotation, or anything by Depends(a_function)."


def sources(planned: Plan) -> dict[str, Any]:
    """The plan as nested dicts: a dotted name, or the arguments of the dependency."""
    return {a.name: sources(a.source) if isinstance(a.source, Plan) else a.source for a in planned.arguments}


def refusal(function: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(DeclarationError) as caught:
        plan(function, PROVIDED, **options)
    return str(caught.value)


def from_task(task: AgentTask) -> str:
    return str(task)


def number() -> int:
    return 1


# --- What is injected


def test_a_parameter_is_injected_by_its_type_whatever_its_name() -> None:
    def agent(anything: AgentTask, row: LabelRow) -> None: ...

    planned = plan(agent, PROVIDED)
    assert sources(planned) == {"anything": TASK, "row": ROW}
    assert planned.needs == {TASK, ROW}
    assert planned.function is agent
    assert not planned.is_generator


def test_annotations_may_be_real_objects() -> None:
    def agent(task: Any, number: Any) -> None: ...

    agent.__annotations__ = {"task": AgentTask, "number": Annotated[int, Depends(number)]}
    assert sources(plan(agent, PROVIDED)) == {"task": TASK, "number": {}}


def test_annotations_may_be_strings_within_strings() -> None:
    def agent(task: "AgentTask", again: Annotated["AgentTask", "note"]) -> None: ...  # noqa: UP037

    assert sources(plan(agent, PROVIDED)) == {"task": TASK, "again": TASK}


def test_a_nested_class_is_known_by_its_full_name() -> None:
    def agent(nested: LabelRow.Nested) -> None: ...

    assert sources(plan(agent, [f"{ROW}.Nested"])) == {"nested": f"{ROW}.Nested"}


def test_a_dotted_annotation_needs_no_import() -> None:
    def agent(item: encord.storage.StorageItem) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"item": ITEM}


@pytest.mark.parametrize("dep", [dep_storage_item, dep_asset, dep_single_frame])
def test_our_own_functions_need_a_storage_item(dep: Callable[..., Any]) -> None:
    def agent(x: Annotated[Any, Depends(dep)]) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"x": {"storage_item": ITEM}}


def test_our_own_client_function_needs_a_client() -> None:
    def agent(x: Annotated[Any, Depends(dep_client)]) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"x": {"client": CLIENT}}


def test_the_names_that_our_own_functions_spell_out_are_those_of_the_sdk() -> None:
    from encord.storage import StorageItem
    from encord.user_client import EncordUserClient

    assert [f"{each.__module__}.{each.__qualname__}" for each in (StorageItem, EncordUserClient)] == [
        ITEM,
        CLIENT,
    ]


def test_local_names_are_seen_though_nothing_but_an_annotation_uses_them() -> None:
    class Local: ...

    def local_dependency() -> int:
        return 1

    def decorate() -> Plan:
        def agent(x: Local, y: Annotated[int, Depends(local_dependency)], z: AgentTask) -> None: ...

        return plan(agent, [f"{Local.__module__}.{Local.__qualname__}", TASK])

    assert [argument.name for argument in decorate().arguments] == ["x", "y", "z"]


def test_closures_are_seen_after_the_enclosing_function_has_returned() -> None:
    def enclose() -> Callable[..., Any]:
        def local_dependency(task: AgentTask) -> int:
            return 1

        def agent(x: Annotated[int, Depends(local_dependency)]) -> object:
            return local_dependency, later

        # What the closure names last is not there yet when the agent is planned.
        planned.append(plan(agent, PROVIDED))
        later = 1
        return agent

    planned: list[Plan] = []
    assert sources(plan(enclose(), PROVIDED)) == sources(planned[0]) == {"x": {"task": TASK}}


def test_local_classes_may_depend_on_local_names() -> None:
    def local_dependency() -> int:
        return 1

    class Model:
        def __init__(self, x: Annotated[int, Depends(local_dependency)]) -> None: ...

    def agent(model: Annotated[Model, Depends()]) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"model": {"x": {}}}


def test_type_aliases_are_looked_through() -> None:
    alias = TypeAliasType("alias", Annotated[int, Depends(number)])

    def agent(x: Any) -> None: ...

    agent.__annotations__["x"] = alias
    assert sources(plan(agent, PROVIDED)) == {"x": {}}


# --- What is left alone


def test_what_is_not_injectable_keeps_its_default() -> None:
    def agent(
        task: AgentTask, threshold: float = 0.5, row: LabelRow | None = None, *, x: Any = 1
    ) -> None: ...

    agent.__annotations__["x"] = "NotThere"
    assert sources(plan(agent, PROVIDED)) == {"task": TASK}


def test_a_default_is_kept_without_any_annotation() -> None:
    assert sources(plan(lambda x=1: x, PROVIDED)) == {}


def test_an_injectable_parameter_is_injected_in_spite_of_a_default() -> None:
    def agent(task: AgentTask = None) -> None: ...  # type: ignore[assignment]

    assert sources(plan(agent, PROVIDED)) == {"task": TASK}


def test_variadic_parameters_are_left_alone() -> None:
    def agent(task: AgentTask, *rows: LabelRow, **more: LabelRow) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"task": TASK}


def test_a_positional_only_parameter_with_a_default_keeps_it() -> None:
    def agent(x: int = 1, /) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {}


def test_leading_parameters_are_skipped() -> None:
    def agent(self: Any, /, task: AgentTask) -> None: ...

    assert sources(plan(agent, PROVIDED, skip=1)) == {"task": TASK}


def test_leading_parameters_may_be_variadic() -> None:
    def agent(*args: Any, task: AgentTask) -> None: ...

    assert sources(plan(agent, PROVIDED, skip=1)) == {"task": TASK}


def test_what_a_partial_has_bound_is_decided() -> None:
    def agent(a: AgentTask, b: AgentTask, c: AgentTask, d: int) -> None: ...

    bound = functools.partial(agent, AgentTask(), b=AgentTask(), d=Depends(number))
    assert sources(plan(bound, PROVIDED)) == {"c": TASK, "d": {}}


# --- Depends


def test_both_styles_of_depends() -> None:
    def agent(a: Annotated[str, Depends(from_task)], b: str = Depends(from_task)) -> None: ...

    planned = plan(agent, PROVIDED)
    assert sources(planned) == {"a": {"task": TASK}, "b": {"task": TASK}}
    assert planned.needs == {TASK}


def test_the_last_depends_in_an_annotation_wins() -> None:
    def agent(a: Annotated[Annotated[int, Depends(from_task)], "note", Depends(number), "note"]) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"a": {}}


def test_depends_goes_before_a_provided_type() -> None:
    def agent(task: Annotated[AgentTask, Depends(number)]) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"task": {}}


def test_bare_depends_on_a_provided_type_is_that_type() -> None:
    def agent(task: Annotated[AgentTask, Depends()], row: LabelRow = Depends()) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"task": TASK, "row": ROW}


def test_depends_is_found_beside_a_type_that_only_type_checkers_import() -> None:
    def agent(
        frame: Annotated[NDArray[Any], Depends(dep_single_frame)],
        either: Annotated[StorageItem | None, Depends(number)],
        other: Annotated[None | StorageItem, Depends(number)],  # noqa: RUF036
        optional: Annotated[Optional[storage.StorageItem], Depends(number)],  # noqa: UP045
    ) -> None: ...

    planned = sources(plan(agent, PROVIDED))
    assert planned == {"frame": {"storage_item": ITEM}, "either": {}, "other": {}, "optional": {}}


def test_classes_are_dependencies() -> None:
    class Model:
        def __init__(self, task: AgentTask, size: int = 3) -> None: ...

    @dataclass
    class Config:
        model: Annotated[Any, Depends(number)]
        task: AgentTask

    class New:
        def __new__(cls, row: LabelRow) -> Any: ...

    def agent(a: Annotated[Model, Depends()], b: Config = Depends(), c: Any = Depends(New)) -> None: ...

    expected = {"a": {"task": TASK}, "b": {"model": {}, "task": TASK}, "c": {"row": ROW}}
    assert sources(plan(agent, PROVIDED)) == expected


class Callables:
    def method(self, task: AgentTask) -> None: ...

    @classmethod
    def class_method(cls, task: AgentTask) -> None: ...

    @staticmethod
    def static_method(task: AgentTask) -> None: ...

    def __call__(self, task: AgentTask) -> None: ...


@functools.wraps(from_task)
def wrapper(*args: Any, **kwargs: Any) -> Any:
    return from_task(*args, **kwargs)


@pytest.mark.parametrize(
    "dependency",
    [
        Callables().method,
        Callables.class_method,
        Callables.static_method,
        Callables(),
        wrapper,
        functools.lru_cache(from_task),
        functools.partial(from_task),
        functools.partial(functools.partial(Callables().method)),
    ],
)
def test_every_kind_of_callable_is_a_dependency(dependency: Callable[..., Any]) -> None:
    def agent(x: Annotated[Any, Depends(dependency)]) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"x": {"task": TASK}}


def test_dependencies_nest_and_what_they_need_adds_up() -> None:
    def inner(row: LabelRow) -> None: ...

    def middle(x: Annotated[int, Depends(inner)], client: encord.project.Project) -> None: ...

    def agent(x: Annotated[int, Depends(middle)], task: AgentTask) -> None: ...

    planned = plan(agent, [*PROVIDED, "encord.project.Project"])
    assert planned.needs == {ROW, TASK, "encord.project.Project"}


def test_the_same_callable_has_the_same_plan() -> None:
    thing = Callables()

    def middle(x: Annotated[Any, Depends(thing.method)]) -> None: ...

    def agent(x: Annotated[Any, Depends(thing.method)], y: Annotated[Any, Depends(middle)]) -> None: ...

    x, y = (argument.source for argument in plan(agent, PROVIDED).arguments)
    assert isinstance(y, Plan)
    assert y.arguments[0].source is x


def test_callables_that_cannot_be_hashed_are_told_apart_by_identity() -> None:
    @dataclass
    class Unhashable:
        def __call__(self) -> None: ...

    one, two = Unhashable(), Unhashable()

    def agent(a: Any = Depends(one), b: Any = Depends(two), c: Any = Depends(one)) -> None: ...

    a, b, c = (argument.source for argument in plan(agent, PROVIDED).arguments)
    assert a is c
    assert a is not b


def test_encord_agents_own_depends_is_accepted_by_its_shape() -> None:
    foreign: Any = type("Depends", (), {"__init__": lambda self, f=None: setattr(self, "dependency", f)})

    class Cached(foreign):  # type: ignore[misc]
        pass

    def agent(a: Annotated[Any, foreign(from_task)], b: Any = Cached(number)) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"a": {"task": TASK}, "b": {}}


def test_what_is_only_called_depends_or_only_has_a_dependency_is_no_marker() -> None:
    class Depends:
        pass

    @dataclass
    class Other:
        dependency: Any = None

    def agent(a: Any = Depends(), b: Any = Other()) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {}


def test_depends_shows_what_it_depends_on() -> None:
    assert repr(Depends(number)) == "Depends(number)"
    assert repr(Depends()) == "Depends(NoneType)"
    assert repr(Depends(functools.partial(number))) == "Depends(partial)"


def test_generators_are_noticed() -> None:
    class Source:
        def __call__(self) -> Iterator[int]:
            yield 1

        def method(self) -> Iterator[int]:
            yield 1

    def agent(
        a: Any = Depends(Source()),
        b: Any = Depends(Source().method),
        c: Any = Depends(functools.partial(Source())),
        d: Any = Depends(Source),
    ) -> None: ...

    planned = plan(agent, PROVIDED)
    assert [a.source.is_generator for a in planned.arguments if isinstance(a.source, Plan)] == [
        True,
        True,
        True,
        False,
    ]


# --- What is refused


def test_refused_without_annotation() -> None:
    expected = "Agent '<lambda>' has a parameter 'x' that cannot be injected, as it has no annotation; "
    assert refusal(lambda x: None) == expected + CHOICES


def test_refused_for_its_type() -> None:
    def agent(task: AgentTask, threshold: float) -> None: ...

    assert (
        refusal(agent)
        == f"Agent 'agent' has a parameter 'threshold: float' that cannot be injected; {CHOICES}"
    )


def test_refused_for_its_type_as_real_object() -> None:
    def agent(x: Any) -> None: ...

    agent.__annotations__["x"] = dict[str, int]
    assert "a parameter 'x: dict[str, int]' that cannot be injected;" in refusal(agent)


@pytest.mark.parametrize("annotation", [Optional[AgentTask], AgentTask | None])  # noqa: UP045
def test_refused_as_optional(annotation: Any) -> None:
    def agent(task: Any) -> None: ...

    agent.__annotations__["task"] = annotation
    assert "that cannot be injected, as it is optional or a union: annotate it with one type;" in refusal(
        agent
    )


def test_refused_as_it_is_imported_for_type_checkers_only() -> None:
    def agent(item: StorageItem) -> None: ...

    why = "as StorageItem does not exist at run time: import it outside of 'if TYPE_CHECKING'"
    expected = f"Agent 'agent' has a parameter 'item: StorageItem' that cannot be injected, {why}; {CHOICES}"
    assert refusal(agent) == expected


@pytest.mark.parametrize(
    "annotation", ["StorageItem | None", "None | StorageItem", "Array[float]", "1 +", "int.x"]
)
def test_refused_as_it_means_nothing_at_run_time(annotation: str) -> None:
    def agent(x: Any) -> None: ...

    agent.__annotations__["x"] = annotation
    assert f"as {annotation} does not exist at run time" in refusal(agent)


def test_refused_as_there_is_no_frame_data() -> None:
    def agent(frame_data: FrameData) -> None: ...

    why = "as a task agent is not called for a frame and has no frame data"
    assert f"'frame_data: FrameData' that cannot be injected, {why};" in refusal(agent)


def test_refused_as_there_is_no_frame_data_though_not_imported() -> None:
    def agent(frame_data: encord_agents.FrameData) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert "has no frame data" in refusal(agent)


def test_refused_as_positional_only() -> None:
    def agent(task: AgentTask, /) -> None: ...

    assert (
        "'task: AgentTask' that cannot be injected, as it is positional-only: remove the '/' after it;"
        in refusal(agent)
    )


def test_refused_for_two_depends() -> None:
    def agent(x: Annotated[int, Depends(number)] = Depends(number)) -> None: ...

    assert "as it has a Depends in its annotation and another as default: keep one;" in refusal(agent)


@pytest.mark.parametrize("annotation", [inspect.Parameter.empty, Optional[AgentTask], "Missing", list[int]])  # noqa: UP045
def test_refused_for_bare_depends_without_a_class(annotation: Any) -> None:
    def agent(x: Any = Depends()) -> None: ...

    agent.__annotations__["x"] = annotation
    assert "as Depends() without a callable needs a class as the annotation;" in refusal(agent)


def test_refused_for_depends_on_no_callable() -> None:
    def agent(x: int = Depends(3)) -> None: ...  # type: ignore[arg-type]

    assert "'x: int' that cannot be injected, as Depends(3) does not hold a callable;" in refusal(agent)


def test_refused_in_a_dependency_with_the_way_to_it() -> None:
    def inner(size: int) -> None: ...

    def middle(x: Annotated[int, Depends(functools.partial(inner))]) -> None: ...

    def agent(x: Annotated[int, Depends(middle)]) -> None: ...

    expected = (
        "Dependency 'inner' (agent -> middle -> inner) has a parameter 'size: int' that cannot be injected; "
    )
    assert refusal(agent) == expected + CHOICES


def test_refused_as_there_is_no_signature() -> None:
    def agent(x: Any = Depends(dict)) -> None: ...

    expected = (
        "Dependency 'dict' (agent -> dict) has no signature to read: wrap it in a function of your own."
    )
    assert refusal(agent) == expected


def test_refused_as_there_is_nothing_to_skip() -> None:
    def agent(*, task: AgentTask) -> None: ...

    assert (
        refusal(agent, skip=1)
        == "Agent 'agent' must take 1 more positional parameter(s) first, such as 'self'."
    )


# --- Asynchronous functions


def test_asynchronous_functions_are_noticed() -> None:
    async def generate(task: AgentTask) -> AsyncIterator[int]:
        yield 1

    class Load:
        async def __call__(self, row: LabelRow) -> None: ...

    async def agent(
        x: Any = Depends(generate), y: Any = Depends(Load()), z: Any = Depends(number)
    ) -> None: ...

    planned = plan(functools.partial(agent), PROVIDED)
    kinds = [
        (a.source.is_async, a.source.is_generator) for a in planned.arguments if isinstance(a.source, Plan)
    ]
    assert kinds == [(True, True), (True, False), (False, False)]
    assert planned.is_async
    assert planned.needs == {TASK, ROW}


# --- Kept for the process


def test_what_is_kept_is_known_from_its_depends() -> None:
    def load() -> int:
        return 1

    def agent(
        a: Annotated[int, Depends(load, scope="worker")],
        b: Annotated[int, Depends(load, scope="worker", warm=True)],
        c: int = Depends(load),
    ) -> None: ...

    a, b, c = (argument.source for argument in plan(agent, PROVIDED).arguments)
    assert isinstance(a, Plan)
    assert isinstance(b, Plan)
    assert isinstance(c, Plan)
    assert [(each.is_kept, each.is_warm) for each in (a, b, c)] == [
        (True, False),
        (True, True),
        (False, False),
    ]
    assert a.key == b.key
    assert repr(Depends(load, scope="worker")) == "Depends(load, scope='worker')"


def test_what_is_to_be_warm_is_found_in_the_whole_tree() -> None:
    def inner() -> int:
        return 1

    def outer(x: Annotated[int, Depends(inner, scope="worker", warm=True)]) -> int:
        return x

    def agent(
        x: Annotated[int, Depends(outer)], y: Annotated[int, Depends(outer, scope="worker")]
    ) -> None: ...

    assert {each.function for each in plan(agent, PROVIDED).warm()} == {inner}


def test_a_foreign_scope_is_no_scope_of_ours() -> None:
    def init(self: Any, dependency: Any) -> None:
        self.dependency, self.scope = dependency, "request"

    foreign: Any = type("Depends", (), {"__init__": init})

    def agent(a: Annotated[Any, foreign(number)]) -> None: ...

    (argument,) = plan(agent, PROVIDED).arguments
    assert isinstance(argument.source, Plan)
    assert not argument.source.is_kept


def test_what_is_kept_may_depend_on_what_is_the_same_for_all() -> None:
    def inner(client: encord.user_client.EncordUserClient) -> int:
        return 1

    def load(x: Annotated[int, Depends(inner)], y: Annotated[int, Depends(number, scope="worker")]) -> int:
        return x

    def agent(x: Annotated[int, Depends(load, scope="worker")]) -> None: ...

    assert plan(agent, PROVIDED, shared=[CLIENT]).needs == {CLIENT}


def test_what_is_kept_may_not_depend_on_an_agent_task() -> None:
    def of_row(row: LabelRow, task: AgentTask, client: encord.user_client.EncordUserClient) -> int:
        return 1

    def load(x: Annotated[int, Depends(of_row)]) -> int:
        return x

    def agent(x: Annotated[int, Depends(load, scope="worker")]) -> None: ...

    assert refusal(agent, shared=[CLIENT]) == (
        "Dependency 'load' (agent -> load) is kept for the whole process (scope='worker'), so it cannot depend on "
        "AgentTask and LabelRow, which each agent task has its own of; what it can depend on: EncordUserClient, and "
        "what can be had without an agent task."
    )


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        ({"scope": "app"}, "Depends(scope='app'): choose 'agent_task' or 'worker'."),
        ({"warm": True}, "Depends(warm=True) is for scope='worker'"),
    ],
)
def test_a_scope_that_there_is_not_is_refused(options: dict[str, Any], detail: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Depends(number, **options)
    assert str(caught.value).startswith(detail)


# --- Lists


def test_lists_are_planned_by_what_they_hold() -> None:
    class Model:
        def __init__(self, task: AgentTask) -> None: ...

    def agent(
        self: Any,
        tasks: list[AgentTask],
        items: Sequence[encord.storage.StorageItem],
        numbers: Annotated[list[NDArray[Any]], Depends(number)],
        quoted: "list['LabelRow']",  # noqa: UP037
        models: Annotated[list[Model], Depends()],
        bare: Annotated[list, Depends(number)],  # type: ignore[type-arg]
        client: encord.user_client.EncordUserClient,
        kept: Annotated[list[str], Depends(number, scope="worker")],
        threshold: float = 0.5,
    ) -> None: ...

    planned = plan(agent, PROVIDED, shared=[CLIENT], batched=True, skip=1)
    assert sources(planned) == {
        "tasks": TASK,
        "items": ITEM,
        "numbers": {},
        "quoted": ROW,
        "models": {"task": TASK},
        "bare": {},
        "client": CLIENT,
        "kept": {},
    }
    assert {a.name for a in planned.arguments if not a.is_list} == {"client", "kept"}


def test_dependencies_of_an_agent_with_lists_get_none() -> None:
    def dependency(task: AgentTask, client: encord.user_client.EncordUserClient) -> int:
        return 1

    def agent(numbers: Annotated[list[int], Depends(dependency)]) -> None: ...

    planned = plan(agent, PROVIDED, shared=[CLIENT], batched=True)
    assert sources(planned) == {"numbers": {"task": TASK, "client": CLIENT}}


@pytest.mark.parametrize(
    "annotation", [AgentTask, Annotated[int, Depends(number)], Annotated[Any, Depends(number)]]
)
def test_refused_as_lists_are_asked_for(annotation: Any) -> None:
    def agent(x: Any) -> None: ...

    agent.__annotations__["x"] = annotation
    sentence = refusal(agent, shared=[CLIENT], batched=True)
    assert sentence.startswith("Agent 'agent' is called with lists (batched=True), but its parameter 'x: ")
    assert "is not one: write list[" in sentence
    assert (
        "Only what is the same for all is no list: EncordUserClient, and Depends(…, scope='worker')."
        in sentence
    )


def test_refused_as_there_is_one_for_all() -> None:
    def agent(clients: list[encord.user_client.EncordUserClient]) -> None: ...

    assert (
        "as there is one encord.user_client.EncordUserClient for all: annotate it as "
        "encord.user_client.EncordUserClient"
    ) in refusal(agent, shared=[CLIENT], batched=True)


def test_refused_as_lists_are_not_asked_for() -> None:
    def agent(tasks: list[AgentTask]) -> None: ...

    assert ", as only an agent that is declared with batched=True gets lists" in refusal(agent)


def test_refused_as_an_asynchronous_agent_does_not_yield_either() -> None:
    async def agent(task: AgentTask) -> AsyncIterator[str]:
        yield "annotate"

    assert refusal(agent).startswith("Agent 'agent' is a generator function")


def test_refused_as_an_agent_does_not_yield() -> None:
    def agent(task: AgentTask) -> Iterator[str]:
        yield "annotate"

    assert (
        refusal(agent) == "Agent 'agent' is a generator function: return the pathway instead of yielding it."
    )


def first(x: Annotated[int, Depends(number)], y: Annotated[int, Depends(second)]) -> None: ...


def second(x: Annotated[int, Depends(third)]) -> None: ...


def third(x: Annotated[int, Depends(first)]) -> None: ...


def test_refused_as_it_goes_in_a_circle() -> None:
    def agent(x: Annotated[int, Depends(first)]) -> None: ...

    expected = "The dependencies of 'agent' go in a circle: agent -> first -> second -> third -> first."
    assert refusal(agent) == expected
    assert refusal(first) == "The dependencies of 'first' go in a circle: first -> second -> third -> first."


def test_a_diamond_is_no_circle() -> None:
    def left(x: Annotated[int, Depends(number)]) -> None: ...

    def right(x: Annotated[int, Depends(number)]) -> None: ...

    def agent(a: Annotated[int, Depends(left)], b: Annotated[int, Depends(right)]) -> None: ...

    assert sources(plan(agent, PROVIDED)) == {"a": {"x": {}}, "b": {"x": {}}}
