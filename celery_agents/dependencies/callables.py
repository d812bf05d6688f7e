"""What can be known of a callable: of which kind it is, what makes it the same as another, and its name for people."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from celery_agents.dependencies.annotations import without_partial


def kind_of(function: Callable[..., Any]) -> tuple[bool, bool, Callable[..., Any]]:
    """Return whether it is a generator function, whether it is asynchronous, and what to call.

    A generator function is called by way of a context manager, which resumes it for its clean-up.
    """
    if _is(inspect.isasyncgenfunction, function):
        return True, True, asynccontextmanager(function)
    if _is(inspect.isgeneratorfunction, function):
        return True, False, contextmanager(function)
    return False, _is(inspect.iscoroutinefunction, function), function


def _is(question: Callable[[Any], bool], function: Any) -> bool:
    """Ask one of inspect's questions of a function, or of the ``__call__`` of an instance."""
    plain = without_partial(function)
    return question(plain) or question(type(plain).__call__)


def key_of(function: Callable[..., Any]) -> Hashable:
    """Return what makes two of them one: equality (each ``thing.method`` is a new object), else identity."""
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function


def name_of(function: Any) -> str:
    """Return its name, without the functions that it was made in."""
    plain = without_partial(function)
    qualname: str = getattr(plain, "__qualname__", type(plain).__qualname__)
    return qualname.rpartition("<locals>.")[2]


def path_of(function: Any) -> str:
    """Return its import path, as far as it has one."""
    return f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', None)}"
