"""``Depends``: how a parameter says that its value comes from a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from celery_agents.errors import DeclarationError

#: For how long a dependency's value is kept: for the agent task that it was made for, or for the whole process.
Scope = Literal["agent_task", "worker"]


class Depends:
    """Asks for the value of ``dependency``, a function, generator function, class or other callable.

    Write it as ``x: Annotated[T, Depends(f)]`` or as ``x: T = Depends(f)``. Without a callable, the annotated
    class itself is called. A generator function is resumed after the agent, for its clean-up. Both may be ``async``.

    Args:
        dependency: What to call.
        scope: ``"worker"`` calls it once for the whole process, at first use, and keeps the value until the process
            ends. It can depend on nothing that each agent task has its own of.
        warm: With ``scope="worker"``: call it already when a worker process starts, before its first message.

    Raises:
        DeclarationError: There is no such scope, or it is warm without being kept.
    """

    dependency: Callable[..., Any] | None
    scope: Scope
    warm: bool

    # Made by __new__ and declared Any, because type checkers would otherwise refuse `x: T = Depends(f)`.
    def __new__(  # noqa: D102
        cls,
        dependency: Callable[..., Any] | None = None,
        *,
        scope: Scope = "agent_task",
        warm: bool = False,
    ) -> Any:
        if scope not in get_args(Scope):
            raise DeclarationError(f"Depends(scope={scope!r}): choose 'agent_task' or 'worker'.")
        if warm and scope != "worker":
            raise DeclarationError(
                "Depends(warm=True) is for scope='worker': nothing else is there so early."
            )
        marker = super().__new__(cls)
        marker.dependency, marker.scope, marker.warm = dependency, scope, warm
        return marker

    def __repr__(self) -> str:
        name = getattr(self.dependency, "__name__", type(self.dependency).__name__)
        scope = "" if self.scope == "agent_task" else f", scope={self.scope!r}"
        return f"{type(self).__name__}({name}{scope})"


def is_marker(value: object) -> bool:
    """Whether ``value`` is a ``Depends``: ours, or one shaped like it, such as encord-agents' own."""
    return any(kind.__name__ == "Depends" for kind in type(value).__mro__) and hasattr(value, "dependency")


def is_kept(marker: Any) -> bool:
    """Whether what *marker* asks for is kept for the process; encord-agents' own markers have no scope."""
    return getattr(marker, "scope", None) == "worker"


def is_warm(marker: Any) -> bool:
    """Whether it is asked for already when a worker process starts."""
    return is_kept(marker) and bool(getattr(marker, "warm", False))
