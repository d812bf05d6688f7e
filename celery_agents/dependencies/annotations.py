"""What the annotation of a parameter means: its type by dotted name, and its ``Depends``.

Annotations may be strings, and may use names that exist for type checkers only. Each one is therefore
evaluated on its own, and a name that does not exist becomes an ``Unresolved`` in its place:
``Annotated[Missing, Depends(f)]`` still shows its ``Depends``, and ``encord.storage.StorageItem`` still
spells a dotted name though ``encord`` is not imported.
"""

from __future__ import annotations

import builtins
import functools
import inspect
from collections import ChainMap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Annotated, Any, ForwardRef, get_args, get_origin

from celery_agents.dependencies.markers import is_marker


class Unresolved:
    """Stands in an annotation for a name that does not exist at run time; ``text`` is how it was written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def __getattr__(self, name: str) -> Unresolved:
        # typing asks whatever it is given for dunder attributes, and must not find any.
        if name.startswith("__"):
            raise AttributeError(name)
        return Unresolved(f"{self.text}.{name}")

    def __getitem__(self, item: object) -> Unresolved:
        return Unresolved(f"{self.text}[{describe(item)}]")

    def __or__(self, other: object) -> Unresolved:
        return Unresolved(f"{self.text} | {describe(other)}")

    def __ror__(self, other: object) -> Unresolved:
        return Unresolved(f"{describe(other)} | {self.text}")


class Names(ChainMap[str, Any]):
    """The names that an annotation can see, innermost scope first; any other name is ``Unresolved``."""

    def __missing__(self, name: str) -> Unresolved:
        return Unresolved(name)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the annotations of one function were written."""

    module: dict[str, Any]
    names: Names

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Scope:
        """The scope of any callable; empty for one that is not written in Python."""
        plain = _plain_function(function)
        if not isinstance(plain, FunctionType):
            return cls({}, Names({}, vars(builtins)))
        local = [_closure(plain), *_enclosing_locals(plain.__code__)]
        return cls(plain.__globals__, Names(*local, plain.__globals__, vars(builtins)))


@dataclass(frozen=True, slots=True)
class Annotation:
    """An annotation taken apart; ``type`` is None for a parameter that has none."""

    type: Any
    marker: Any = None

    def element(self, scope: Scope) -> Annotation:
        """The annotation of what the list, that this is one of, holds."""
        (element,) = get_args(self.type) or (None,)
        return Annotation(_evaluate(element, scope), self.marker)


def read(annotation: Any, scope: Scope) -> Annotation:
    """Take the annotation of a parameter apart. Of several ``Depends`` in one ``Annotated`` the last wins."""
    if annotation is inspect.Parameter.empty:
        return Annotation(None)
    value = _evaluate(annotation, scope)
    if get_origin(value) is not Annotated:
        return Annotation(value)
    inner, *metadata = get_args(value)
    markers = [extra for extra in metadata if is_marker(extra)]
    return Annotation(_evaluate(inner, scope), markers[-1] if markers else None)


def dotted_name(annotation: Any) -> str | None:
    """``module.qualname`` of a class, the text of what could not be resolved, None for anything else."""
    if isinstance(annotation, type):
        return f"{annotation.__module__}.{annotation.__qualname__}"
    return annotation.text if isinstance(annotation, Unresolved) else None


def describe(annotation: Any) -> str:
    """An annotation as a person would write it."""
    if isinstance(annotation, str):
        return annotation
    return inspect.formatannotation(annotation).replace("typing.", "")


def without_partial(function: Any) -> Any:
    """The callable that a ``functools.partial`` is of; any other callable as it is."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _evaluate(annotation: Any, scope: Scope) -> Any:
    """The object that an annotation denotes, through strings, strings in strings, and ``type`` aliases."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if not isinstance(annotation, str):
        return getattr(annotation, "__value__", annotation)
    try:
        # The text is the user's own code, in the place that Python itself would evaluate it in.
        value = eval(annotation, scope.module, scope.names)  # noqa: S307
    except Exception:  # noqa: BLE001 - it matters only if the parameter has nothing else to go by
        return Unresolved(annotation)
    return _evaluate(value, scope)


def _plain_function(function: Any) -> Any:
    """The function, among those that a callable is made of, that its signature was written for."""
    function = inspect.unwrap(without_partial(function))
    if isinstance(function, type):
        constructors = (getattr(function, name) for name in ("__init__", "__new__"))
        return next((each for each in constructors if isinstance(each, FunctionType)), None)
    if not inspect.isroutine(function):
        function = type(function).__call__
    return inspect.unwrap(getattr(function, "__func__", function))


def _closure(function: FunctionType) -> dict[str, Any]:
    names = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # assigned only later, further down in the enclosing function
            continue
    return names


def _enclosing_locals(code: CodeType) -> Iterator[dict[str, Any]]:
    """The local names of the functions around ``code`` that are running now.

    A name that only a string annotation mentions is not in the function's closure; but a nested function is
    decorated while the functions around it still run, and their code holds its code as a constant.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if _holds(frame.f_code, code):
            yield frame.f_locals
        frame = frame.f_back


def _holds(outer: CodeType, code: CodeType) -> bool:
    nested = [constant for constant in outer.co_consts if isinstance(constant, CodeType)]
    return any(each is code or _holds(each, code) for each in nested)
