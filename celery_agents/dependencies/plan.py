"""From a signature to a plan of how its arguments are obtained: made once, when the agent is decorated."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter
from types import UnionType
from typing import Any, NoReturn, Union, get_origin

from celery_agents.dependencies.annotations import (
    Annotation,
    Scope,
    Unresolved,
    describe,
    dotted_name,
    read,
)
from celery_agents.dependencies.callables import key_of, kind_of, name_of
from celery_agents.dependencies.markers import is_kept, is_marker, is_warm
from celery_agents.errors import DeclarationError

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
#: What may be written for a list of one value for each agent task.
LISTS = (list, Sequence)


@dataclass(frozen=True, slots=True)
class Argument:
    """One keyword argument, and its source: a provided type by dotted name, or the plan of a dependency."""

    name: str
    source: str | Plan
    is_list: bool = False  #: one value for each agent task of a list, for an agent that is called with lists


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How one callable is called.

    Within one tree the same callable has the same plan object, so a plan is compared and cached by identity.
    """

    function: Callable[..., Any]
    arguments: tuple[Argument, ...]
    is_generator: bool
    #: Dotted names of the provided types that the tree below needs, this function's own included.
    needs: frozenset[str]
    #: What to call: the function, or for a generator function that which makes a context manager of it.
    call: Callable[..., Any]
    is_async: bool  #: a coroutine function, or with ``is_generator`` an asynchronous generator function
    key: Hashable  #: what the function is known by in all plans
    is_kept: bool = False  #: called once for the process, see ``resources``
    is_warm: bool = False  #: and that already when a worker process starts
    has_dependencies: bool = True  #: besides provided types

    def warm(self) -> Iterator[Plan]:
        """Yield the plans in the tree below that are to be called when a worker process starts."""
        for argument in self.arguments:
            if isinstance(argument.source, Plan):
                yield from argument.source.warm()
        if self.is_warm:
            yield self

    def bound_to(self, task: object) -> Plan:
        """Return this plan for a function whose first parameter was skipped and is *task* from now on."""
        return replace(
            self,
            function=functools.partial(self.function, task),
            call=functools.partial(self.call, task),
        )


def plan(
    function: Callable[..., Any],
    provided: Collection[str],
    *,
    shared: Collection[str] = (),
    skip: int = 0,
    batched: bool = False,
) -> Plan:
    """Plan the call of an agent.

    Args:
        function: The agent. Its annotations are matched with ``provided`` by dotted name.
        provided: Dotted names of the injectable types, in the order in which an error should list them.
        shared: Those of them whose value is the same for all agent tasks.
        skip: How many leading parameters the caller fills by itself (1 for a bound Celery task's ``self``).
        batched: Whether it is called for many agent tasks at once, with lists of what each has its own of.

    Raises:
        DeclarationError: A parameter cannot be injected, or a function cannot be called as it is declared.
    """
    planner = _Planner(provided, shared, batched=batched)
    agent = planner.plan(function, skip)
    if agent.is_generator:
        raise DeclarationError(
            f"Agent '{name_of(function)}' is a generator function: return the pathway instead of yielding it."
        )
    return agent


class _Planner:
    """Plans one agent and everything that it depends on; a callable that is met twice is planned once."""

    def __init__(self, provided: Collection[str], shared: Collection[str], *, batched: bool) -> None:
        self.provided = tuple(provided)
        self.shared = frozenset(shared)
        self.batched = batched
        self.planned: dict[Hashable, Plan] = {}
        self.path: dict[Hashable, Callable[..., Any]] = {}

    def plan(self, function: Callable[..., Any], skip: int = 0, marker: Any = None) -> Plan:
        key = key_of(function)
        if key in self.path:
            chain = " -> ".join(name_of(each) for each in (*self.path.values(), function))
            raise DeclarationError(f"The dependencies of '{self._agent}' go in a circle: {chain}.")
        asked_for = key, is_kept(marker), is_warm(marker)
        if asked_for not in self.planned:
            self.path[key] = function
            self.planned[asked_for] = self._scoped(self._plan(function, skip), marker)
            del self.path[key]
        return self.planned[asked_for]

    def _scoped(self, planned: Plan, marker: Any) -> Plan:
        if not is_kept(marker):
            return planned
        if own := [name.rpartition(".")[2] for name in self.provided if name in planned.needs - self.shared]:
            raise DeclarationError(
                f"{self._who()} is kept for the whole process (scope='worker'), so it cannot depend on "
                f"{' and '.join(own)}, which each agent task has its own of; what it can depend on: "
                f"{self._names_of(self.shared)}, and what can be had without an agent task."
            )
        return replace(planned, is_kept=True, is_warm=is_warm(marker))

    def _plan(self, function: Callable[..., Any], skip: int) -> Plan:
        scope = Scope.of(function)
        parameters = self._parameters(function)
        bound = function.keywords if isinstance(function, functools.partial) else {}
        arguments = tuple(
            argument
            for parameter in self._without_leading(parameters, skip)
            # What a partial has bound is decided, unless it was bound to a Depends.
            if parameter.name not in bound or is_marker(parameter.default)
            if (argument := self._argument(parameter, scope)) is not None
        )
        needs = (a.source.needs if isinstance(a.source, Plan) else {a.source} for a in arguments)
        is_generator, is_async, call = kind_of(function)
        return Plan(
            function,
            arguments,
            is_generator,
            frozenset().union(*needs),
            call,
            is_async,
            key_of(function),
            has_dependencies=any(isinstance(argument.source, Plan) for argument in arguments),
        )

    def _argument(self, parameter: Parameter, scope: Scope) -> Argument | None:
        """How one parameter is filled, or None for one that keeps its default."""
        annotation = read(parameter.annotation, scope)
        marker = self._marker(parameter, annotation)
        is_list = self._is_list(parameter, annotation, marker)
        if is_list:
            annotation = annotation.element(scope)
            self._refuse_list_of_shared(parameter, annotation, marker)
        dotted = dotted_name(annotation.type)
        source: str | Plan
        if dotted is not None and dotted in self.provided and (marker is None or marker.dependency is None):
            source = dotted
        elif marker is not None:
            source = self.plan(self._dependency(marker, parameter, annotation), marker=marker)
        elif parameter.default is not Parameter.empty:
            return None
        else:
            self._refuse(parameter, _why_not(annotation.type))
        if parameter.kind is Parameter.POSITIONAL_ONLY:
            self._refuse(parameter, ", as it is positional-only: remove the '/' after it")
        return Argument(parameter.name, source, is_list)

    def _is_list(self, parameter: Parameter, annotation: Annotation, marker: Any) -> bool:
        """Whether a parameter of an agent that is called with lists takes one; refuse it where it should."""
        if not self.batched or len(self.path) > 1 or is_kept(marker):
            return False
        dotted = dotted_name(annotation.type)
        if dotted in self.shared and (marker is None or marker.dependency is None):
            return False
        if (get_origin(annotation.type) or annotation.type) not in LISTS:
            if marker is None and dotted not in self.provided:
                return False  # it keeps its default, or is refused for what it is
            self._refuse_single(parameter, annotation)
        return True

    def _refuse_list_of_shared(self, parameter: Parameter, element: Annotation, marker: Any) -> None:
        if marker is None and dotted_name(element.type) in self.shared:
            one = describe(element.type)
            self._refuse(parameter, f", as there is one {one} for all: annotate it as {one}")

    def _refuse_single(self, parameter: Parameter, annotation: Annotation) -> NoReturn:
        raise DeclarationError(
            f"{self._who()} is called with lists (batched=True), but its parameter "
            f"'{_shown(parameter)}' is not one: write list[{describe(annotation.type)}], and it gets one for each "
            f"agent task. Only what is the same for all is no list: {self._names_of(self.shared)}, and "
            "Depends(…, scope='worker')."
        )

    def _marker(self, parameter: Parameter, annotation: Annotation) -> Any:
        if not is_marker(parameter.default):
            return annotation.marker
        if annotation.marker is not None:
            self._refuse(
                parameter, ", as it has a Depends in its annotation and another as default: keep one"
            )
        return parameter.default

    def _dependency(self, marker: Any, parameter: Parameter, annotation: Annotation) -> Callable[..., Any]:
        if marker.dependency is None:
            if not isinstance(annotation.type, type):
                self._refuse(parameter, ", as Depends() without a callable needs a class as the annotation")
            return annotation.type
        if not callable(marker.dependency):
            self._refuse(parameter, f", as Depends({marker.dependency!r}) does not hold a callable")
        return marker.dependency  # type: ignore[no-any-return]

    def _parameters(self, function: Callable[..., Any]) -> list[Parameter]:
        try:
            return list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            raise DeclarationError(
                f"{self._who()} has no signature to read: wrap it in a function of your own."
            ) from None

    def _without_leading(self, parameters: list[Parameter], skip: int) -> list[Parameter]:
        """The parameters to fill, without those that the caller passes by position."""
        leading = [p for p in parameters if p.kind in POSITIONAL]
        takes_more = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
        if len(leading) < skip and not takes_more:
            raise DeclarationError(
                f"{self._who()} must take {skip} more positional parameter(s) first, such as 'self'."
            )
        skipped = leading[:skip]
        return [p for p in parameters if p not in skipped and p.kind not in VARIADIC]

    def _refuse(self, parameter: Parameter, why: str) -> NoReturn:
        raise DeclarationError(
            f"{self._who()} has a parameter '{_shown(parameter)}' that cannot be injected{why}; "
            f"what can be: {self._names_of(self.provided)} by annotation, or anything by Depends(a_function)."
        )

    def _names_of(self, types: Collection[str]) -> str:
        return ", ".join(name.rpartition(".")[2] for name in self.provided if name in types)

    @property
    def _agent(self) -> str:
        return name_of(next(iter(self.path.values())))

    def _who(self) -> str:
        """The function being planned, for a sentence."""
        names = [name_of(function) for function in self.path.values()]
        if len(names) == 1:
            return f"Agent '{names[0]}'"
        return f"Dependency '{names[-1]}' ({' -> '.join(names)})"


def _why_not(annotation: Any) -> str:
    """The likeliest mistake behind a parameter that has no default and whose type is not provided."""
    if annotation is None:
        return ", as it has no annotation"
    if (dotted_name(annotation) or "").rpartition(".")[2] == "FrameData":
        return ", as a task agent is not called for a frame and has no frame data"
    if isinstance(annotation, Unresolved):
        return f", as {annotation.text} does not exist at run time: import it outside of 'if TYPE_CHECKING'"
    if get_origin(annotation) in LISTS:
        return ", as only an agent that is declared with batched=True gets lists"
    if get_origin(annotation) in (Union, UnionType):
        return ", as it is optional or a union: annotate it with one type"
    return ""


def _shown(parameter: Parameter) -> str:
    """A parameter as it was written, without its default."""
    if parameter.annotation is Parameter.empty:
        return parameter.name
    return f"{parameter.name}: {describe(parameter.annotation)}"
