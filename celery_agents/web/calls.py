"""Calls that block, kept off the event loop, and those of which one serves all who ask for it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

#: Threads that wait for the broker, the ledger, the result backend and Encord. Of their own: if one of these hangs, the
#: threads of the application around go on.
THREADS = 16

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Runs functions that block in threads."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="celery-agents-web")

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what *function* returns; raise what it raises."""
        call = partial(copy_context().run, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


class Shared(Generic[T]):
    """Makes one call for all who ask for the same while an earlier one is under way.

    None of them is served by a call that began before they asked.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._next: dict[Hashable, asyncio.Task[T]] = {}

    async def __call__(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """Return what *call* returns, or that of somebody else who asked for the same *key* just before."""
        if key not in self._next:
            self._next[key] = asyncio.ensure_future(self._after(self._running.get(key), key, call))
        # Who goes away does not take it from the others.
        return await asyncio.shield(self._next[key])

    async def _after(
        self, earlier: asyncio.Task[T] | None, key: Hashable, call: Callable[[], Awaitable[T]]
    ) -> T:
        if earlier is not None:
            await asyncio.wait([earlier])
        this: asyncio.Task[Any] = self._next.pop(key)
        self._running[key] = this
        try:
            return await call()
        finally:
            if self._running.get(key) is this:
                del self._running[key]
