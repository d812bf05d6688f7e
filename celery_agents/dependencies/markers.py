"""``Depends``: how a parameter says that its value comes from a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Depends:
    """Asks for the value of ``dependency``, a function, generator function, class or other callable.

    Write it as ``x: Annotated[T, Depends(f)]`` or as ``x: T = Depends(f)``. Without a callable, the annotated
    class itself is called. A generator function is resumed after the agent, for its clean-up.
    """

    dependency: Callable[..., Any] | None

    # Made by __new__ and declared Any, because type checkers would otherwise refuse `x: T = Depends(f)`.
    def __new__(cls, dependency: Callable[..., Any] | None = None) -> Any:  # noqa: D102
        marker = super().__new__(cls)
        marker.dependency = dependency
        return marker

    def __repr__(self) -> str:
        name = getattr(self.dependency, "__name__", type(self.dependency).__name__)
        return f"{type(self).__name__}({name})"


def is_marker(value: object) -> bool:
    """Whether ``value`` is a ``Depends``: ours, or one shaped like it, such as encord-agents' own."""
    return any(kind.__name__ == "Depends" for kind in type(value).__mro__) and hasattr(value, "dependency")
