"""The agents that an app declares: find them, choose among them, say where their messages go."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import click
from celery import Celery

from celery_agents.cli.sentences import CommandError
from celery_agents.task import StageTask


def agent_tasks(app: Celery) -> list[StageTask]:
    """Return the app's agent tasks, in the order of their names, after loading what the app imports.

    Raises:
        CommandError: It has none.
    """
    app.loader.import_default_modules()
    app.finalize()
    tasks = [task for _, task in sorted(app.tasks.items()) if isinstance(task, StageTask)]
    if not tasks:
        raise CommandError(
            f"There is no @runner.stage in app {app.main or 'default'!r}: import the module that declares them in the "
            "app's module, or name it in the `imports` setting; -A says which app (celery -A app agents …)."
        )
    return tasks


def chosen(tasks: Sequence[StageTask], stages: Sequence[str]) -> list[StageTask]:
    """Return those of *tasks* whose stage, as declared, or Celery name is in *stages*; all where it is empty.

    Raises:
        click.UsageError: A stage has no agent here; the sentence names the nearest.
    """
    if not stages:
        return list(tasks)
    by_name = {name: task for task in tasks for name in (task.name, str(task.stage_agent.stage))}
    unknown = [stage for stage in stages if stage not in by_name]
    if unknown:
        raise click.BadParameter(_no_such_stage(unknown[0], by_name, tasks), param_hint="--stage")
    return list(dict.fromkeys(by_name[stage] for stage in stages))


def _no_such_stage(stage: str, by_name: dict[str, StageTask], tasks: Sequence[StageTask]) -> str:
    near = difflib.get_close_matches(stage, by_name, n=3) or [str(task.stage_agent.stage) for task in tasks]
    return f"no agent is declared for stage {stage!r}; did you mean {' or '.join(map(repr, near))}?"


def function_path(task: StageTask) -> str:
    """Return the import path of the user's function."""
    function = task.stage_agent.function
    return f"{function.__module__}.{function.__qualname__}"
