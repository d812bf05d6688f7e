"""Whether a library's class is what it was: what is used of Celery and kombu beyond their documented names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

#: What is used, by its name for people, and what tells that it still is what it was.
Layout: TypeAlias = Iterable[tuple[str, Callable[[Any], bool]]]


def first_unknown(layout: Layout, used: Any) -> str | None:
    """Return the name of what is not as it was in *used*, or None."""
    return next((symbol for symbol, is_known in layout if not _holds(is_known, used)), None)


def _holds(is_known: Callable[[Any], bool], used: Any) -> bool:
    try:
        return is_known(used)
    except (AttributeError, TypeError, ValueError):
        return False
