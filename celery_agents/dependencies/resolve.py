"""From a plan to keyword arguments: once for each agent task, so planning has found out all it can."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from celery_agents.dependencies.plan import Plan


def resolve(plan: Plan, values: Mapping[str, Any], stack: ExitStack) -> dict[str, Any]:
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


def _arguments(
    plan: Plan, values: Mapping[str, Any], stack: ExitStack, cache: dict[Plan, Any]
) -> dict[str, Any]:
    arguments = {}
    for argument in plan.arguments:
        source = argument.source
        if isinstance(source, str):
            arguments[argument.name] = values[source]
        elif source in cache:
            arguments[argument.name] = cache[source]
        else:
            value = source.call(**_arguments(source, values, stack, cache))
            if source.is_generator:
                value = stack.enter_context(value)
            arguments[argument.name] = cache[source] = value
    return arguments
