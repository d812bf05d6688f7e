"""From a signature to a plan of how its arguments are obtained: made once, when the agent is decorated."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Hashable
from contextlib import contextmanager
from dataclasses import dataclass
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
    without_partial,
)
from celery_agents.dependencies.markers import is_marker
from celery_agents.errors import DeclarationError

POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Argument:
    """One keyword argument, and its source: a provided type by dotted name, or the plan of a dependency."""

    name: str
    source: str | Plan


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


def plan(function: Callable[..., Any], provided: Collection[str], *, skip: int = 0) -> Plan:
    """Plan the call of an agent.

    Args:
        function: The agent. Its annotations are matched with ``provided`` by dotted name.
        provided: Dotted names of the injectable types, in the order in which an error should list them.
        skip: How many leading parameters the caller fills by itself (1 for a bound Celery task's ``self``).

    Raises:
        DeclarationError: A parameter cannot be injected, or a function cannot be called as it is declared.
    """
    planner = _Planner(provided)
    agent = planner.plan(function, skip)
    if agent.is_generator:
        raise DeclarationError(
            f"Agent '{_name(function)}' is a generator function: return the pathway instead of yielding it."
        )
    return agent


class _Planner:
    """Plans one agent and everything that it depends on; a callable that is met twice is planned once."""

    def __init__(self, provided: Collection[str]) -> None:
        self.provided = tuple(provided)
        self.planned: dict[Hashable, Plan] = {}
        self.path: dict[Hashable, Callable[..., Any]] = {}

    def plan(self, function: Callable[..., Any], skip: int = 0) -> Plan:
        key = _key(function)
        if key in self.path:
            chain = " -> ".join(_name(each) for each in (*self.path.values(), function))
            raise DeclarationError(f"The dependencies of '{self._agent}' go in a circle: {chain}.")
        if key not in self.planned:
            self.path[key] = function
            self.planned[key] = self._plan(function, skip)
            del self.path[key]
        return self.planned[key]

    def _plan(self, function: Callable[..., Any], skip: int) -> Plan:
        self._refuse_async(function)
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
        is_generator = _is(inspect.isgeneratorfunction, function)
        call = contextmanager(function) if is_generator else function
        return Plan(function, arguments, is_generator, frozenset().union(*needs), call)

    def _argument(self, parameter: Parameter, scope: Scope) -> Argument | None:
        """How one parameter is filled, or None for one that keeps its default."""
        annotation = read(parameter.annotation, scope)
        marker = self._marker(parameter, annotation)
        dotted = dotted_name(annotation.type)
        source: str | Plan
        if dotted is not None and dotted in self.provided and (marker is None or marker.dependency is None):
            source = dotted
        elif marker is not None:
            source = self.plan(self._dependency(marker, parameter, annotation))
        elif parameter.default is not Parameter.empty:
            return None
        else:
            self._refuse(parameter, _why_not(annotation.type))
        if parameter.kind is Parameter.POSITIONAL_ONLY:
            self._refuse(parameter, ", as it is positional-only: remove the '/' after it")
        return Argument(parameter.name, source)

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

    def _refuse_async(self, function: Callable[..., Any]) -> None:
        if _is(inspect.iscoroutinefunction, function) or _is(inspect.isasyncgenfunction, function):
            raise DeclarationError(
                f"{self._who()} is async, which this version does not run: write it with a plain 'def'."
            )

    def _refuse(self, parameter: Parameter, why: str) -> NoReturn:
        shown = parameter.name
        if parameter.annotation is not Parameter.empty:
            shown = f"{parameter.name}: {describe(parameter.annotation)}"
        choices = ", ".join(name.rpartition(".")[2] for name in self.provided)
        raise DeclarationError(
            f"{self._who()} has a parameter '{shown}' that cannot be injected{why}; "
            f"what can be: {choices} by annotation, or anything by Depends(a_function)."
        )

    @property
    def _agent(self) -> str:
        return _name(next(iter(self.path.values())))

    def _who(self) -> str:
        """The function being planned, for a sentence."""
        names = [_name(function) for function in self.path.values()]
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
    if get_origin(annotation) in (Union, UnionType):
        return ", as it is optional or a union: annotate it with one type"
    return ""


def _is(question: Callable[[Any], bool], function: Any) -> bool:
    """Ask one of inspect's questions of a function, or of the ``__call__`` of an instance."""
    plain = without_partial(function)
    return question(plain) or question(type(plain).__call__)


def _key(function: Callable[..., Any]) -> Hashable:
    """What makes two dependencies one: equality (each ``thing.method`` is a new object), else identity."""
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function


def _name(function: Any) -> str:
    plain = without_partial(function)
    qualname: str = getattr(plain, "__qualname__", type(plain).__qualname__)
    return qualname.rpartition("<locals>.")[2]
