"""From a plan to keyword arguments: once for each agent task, so planning has found out all it can.

``resolve`` is for whoever runs in a thread, ``resolve_on_loop`` for agents that are coroutines. Either kind of agent
may have either kind of dependency: a thread waits for what runs on the loop, and a coroutine for what runs in a thread.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Hashable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    nullcontext,
)
from functools import partial
from types import TracebackType
from typing import Any

from celery_agents import loop
from celery_agents.dependencies import resources
from celery_agents.dependencies.plan import Plan

Values = Mapping[Any, Any]
Cache = dict[Plan, Any]


class CleanUp(ExitStack[None]):
    """What was entered for one agent task. A clean-up that swallows what the agent raised hides no failure."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, where)


_NOTHING: AbstractContextManager[ExitStack] = nullcontext(ExitStack())


def clean_up_after(plan: Plan) -> AbstractContextManager[ExitStack]:
    """Return a context in which ``resolve`` enters generators; they are left with it."""
    return CleanUp() if plan.has_dependencies else _NOTHING


class CleanUpOnLoop(AsyncExitStack[None]):
    """The same for an agent that is a coroutine."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, where)


def resolve(plan: Plan, values: Values, stack: ExitStack) -> dict[str, Any]:
    """The keyword arguments with which to call ``plan.function`` for one agent task.

    Args:
        plan: The agent's plan.
        values: By dotted name, a value for each type in ``plan.needs``.
        stack: Where generators are entered. Leave it after the agent has run: they are resumed in reverse
            order, and an exception of the agent's is raised in them at their ``yield``.

    Raises:
        Exception: Whatever a dependency raises; what was entered before it is on ``stack``.
    """
    return _arguments(plan, values, stack, {})


async def resolve_on_loop(plan: Plan, values: Values, stack: AsyncExitStack) -> dict[str, Any]:
    """The same for an agent that is a coroutine. What is none, such as a download, runs in a thread meanwhile."""
    return await _arguments_on_loop(plan, values, stack, {})


def obtain_kept(plan: Plan, values: Values) -> Any:
    """The value of a dependency that is kept for the process; it is loaded where it is not there yet."""
    belongs_to = _belongs_to(plan, values)
    return resources.of_process().obtain(
        _key_of_kept(plan, values), belongs_to, lambda stack: _call(plan, values, stack, {})
    )


def _arguments(plan: Plan, values: Values, stack: ExitStack, cache: Cache) -> dict[str, Any]:
    arguments = {}
    for argument in plan.arguments:
        source = argument.source
        if isinstance(source, str):
            arguments[argument.name] = values[source]
        else:
            if source not in cache:
                cache[source] = _obtain(source, values, stack, cache)
            arguments[argument.name] = cache[source]
    return arguments


def _obtain(plan: Plan, values: Values, stack: ExitStack, cache: Cache) -> Any:
    return obtain_kept(plan, values) if plan.is_kept else _call(plan, values, stack, cache)


def _call(plan: Plan, values: Values, stack: ExitStack, cache: Cache) -> Any:
    called = values.get(plan, plan.call)(**_arguments(plan, values, stack, cache))
    if plan.is_generator:
        return stack.enter_context(_WaitedFor(called) if plan.is_async else called)
    return loop.run(called) if plan.is_async else called


async def _arguments_on_loop(
    plan: Plan, values: Values, stack: AsyncExitStack, cache: Cache
) -> dict[str, Any]:
    arguments = {}
    for argument in plan.arguments:
        source = argument.source
        if isinstance(source, str):
            arguments[argument.name] = values[source]
        else:
            if source not in cache:
                cache[source] = await _obtain_on_loop(source, values, stack, cache)
            arguments[argument.name] = cache[source]
    return arguments


async def _obtain_on_loop(plan: Plan, values: Values, stack: AsyncExitStack, cache: Cache) -> Any:
    if plan.is_kept:
        return await _obtain_kept_on_loop(plan, values)
    arguments = await _arguments_on_loop(plan, values, stack, cache)
    call = values.get(plan, plan.call)
    if plan.is_generator:
        called = call(**arguments)
        return await stack.enter_async_context(called if plan.is_async else _InThreads(called))
    if plan.is_async:
        return await call(**arguments)
    return await asyncio.to_thread(call, **arguments)


async def _obtain_kept_on_loop(plan: Plan, values: Values) -> Any:
    kept = resources.of_process().find(_key_of_kept(plan, values))
    if kept is not None:
        return kept.value
    loading = partial(obtain_kept, plan, values)
    return await asyncio.get_running_loop().run_in_executor(resources.of_process().loaders, loading)


def _key_of_kept(plan: Plan, values: Values) -> Hashable:
    """What is kept is one thing for all stages, and another for each project that it needs."""
    return plan.key, *map(id, _belongs_to(plan, values)[1:])


def _belongs_to(plan: Plan, values: Values) -> tuple[object, ...]:
    return plan.function, *(values[name] for name in sorted(plan.needs))


class _WaitedFor(AbstractContextManager[Any]):
    """An asynchronous context manager for use in a thread, which waits while it is entered and left on the loop."""

    def __init__(self, manager: AbstractAsyncContextManager[Any]) -> None:
        self._manager = manager

    def __enter__(self) -> Any:
        return loop.run(_awaited(self._manager.__aenter__()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        return bool(loop.run(_awaited(self._manager.__aexit__(kind, error, where))))


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


class _InThreads(AbstractAsyncContextManager[Any]):
    """A context manager for use on the loop, which goes on while this one is entered and left in threads."""

    def __init__(self, manager: AbstractContextManager[Any]) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        entering = asyncio.ensure_future(asyncio.to_thread(self._manager.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            # A thread cannot be interrupted: it is waited for, and what it has entered is left again.
            await asyncio.wait([entering])
            if entering.exception() is None:
                await self.__aexit__(*sys.exc_info())
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool | None:
        return await asyncio.to_thread(self._manager.__exit__, kind, error, where)
