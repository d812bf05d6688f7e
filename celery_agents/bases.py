"""The class of an agent's Celery task: ``StageTask``, with what the user and the app want of all their tasks."""

from __future__ import annotations

from typing import Any

from celery import Celery, Task

from celery_agents.errors import DeclarationError
from celery_agents.options import INHERITED_OPTIONS
from celery_agents.task import StageTask


def task_base(app: Celery | None, given: object) -> type[StageTask]:
    """Return the class that an agent's task is made of.

    Args:
        app: The app whose own class of tasks (``Celery(task_cls=…)``, ``app.Task = …``) it is too; None: of no app.
        given: ``base`` of ``@runner.stage``, a class of Celery tasks, or None.

    Raises:
        DeclarationError: *given* is something else.
    """
    base = StageTask if given is None else _mixed(given)
    if app is None or app.Task.__bases__ == (Task,) or issubclass(base, app.Task):
        return base
    return type("StageTask", (base, app.Task), {"abstract": True})


def _mixed(given: object) -> type[StageTask]:
    if not (isinstance(given, type) and issubclass(given, Task)):
        raise DeclarationError(
            f"base={given!r}: give a class of Celery tasks, a subclass of celery.Task or of celery_agents.StageTask."
        )
    if issubclass(given, StageTask):
        return given
    return type(given.__name__, (given, StageTask), {"abstract": True, "__module__": given.__module__})


def inherited_options(base: type[StageTask]) -> dict[str, Any]:
    """Return what the user's own classes among the bases say of options that a stage has defaults for."""
    users = [each for each in base.__mro__ if not issubclass(StageTask, each) and each is not StageTask]
    return {
        name: value
        for each in reversed(users)
        for name, value in vars(each).items()
        if name in INHERITED_OPTIONS
    }
