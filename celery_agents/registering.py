"""Make an agent known to Celery: its task, and what workers, beat and those who ask for sweeps need besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast
from uuid import UUID

from celery import Celery, shared_task
from celery.signals import worker_init
from celery.utils.log import get_logger

from celery_agents import stopping, worker
from celery_agents.declaring import name_of
from celery_agents.producer import tasks
from celery_agents.task import Declaration, StageTask

logger = get_logger(__name__)

#: The tasks declared without an app, by name, and what they stand for; those declared with one are kept at that app.
_shared: dict[str, tuple[StageTask, Declaration]] = {}


def register(app: Celery | None, name: str, declaration: Declaration, base: type[StageTask]) -> StageTask:
    """Return the Celery task with this name, which stands for *declaration* from now on.

    Args:
        app: To whom it belongs; None for every app, as with ``shared_task``.
        name: Of the task.
        declaration: The agent and its runner.
        base: The class of the task, where it is new.
    """
    stopping.connect()
    worker.connect()
    _register_sweeps(app, declaration.runner.project_hash)
    registered = _shared if app is None else vars(app).setdefault("celery_agents", {})
    if name in registered:
        _declare_again(name, registered[name][1], declaration)
    else:
        registered[name] = _new(app, name, declaration, base), declaration
    return cast("StageTask", registered[name][0])


def _new(app: Celery | None, name: str, declaration: Declaration, base: type[StageTask]) -> StageTask:
    stage_agent = declaration.stage_agent
    options: Mapping[str, Any] = {
        "base": base,
        "bind": True,
        "name": name,
        "max_retries": stage_agent.options.retry.max_retries,
        "autoretry_for": (),  # Celery's own would retry the whole message
        "declaration": declaration,
        **stage_agent.options.celery,
    }
    run = _run_of(stage_agent.function)
    # With an app it is not shared: with several apps in one process each keeps the agents that it was given.
    task = shared_task(run, **options) if app is None else app.task(run, shared=False, **options)
    return cast("StageTask", task)


def _register_sweeps(app: Celery | None, project_hash: UUID) -> None:
    """Make the tasks that sweep a project known to *app*, or to every app; one that is known stays."""
    worker_init.connect(_on_worker_init, dispatch_uid=__name__, weak=False)
    for run, base, name in (
        (_sweep, tasks.SweepTask, tasks.name_of(project_hash)),
        (_sweep_asked, tasks.AskedSweepTask, tasks.name_of_asked(project_hash)),
    ):
        options = {"base": base, "bind": True, "name": name, "project_hash": project_hash}
        if app is None:
            shared_task(run, **options)
        else:
            app.task(run, shared=False, **options)


def _sweep(self: tasks.SweepTask, **options: Any) -> dict[str, Any]:
    """Send what waits at the agent stages to the workers."""
    from celery_agents.producer.beat import sweep  # here, because only workers need it

    return sweep(self, **options)


def _sweep_asked(self: tasks.AskedSweepTask, **options: Any) -> dict[str, Any]:
    """Send what waits at an agent stage to the workers, since somebody asked for it."""
    from celery_agents.producer.asked import sweep_asked

    return sweep_asked(self, **options)


def _on_worker_init(**_: Any) -> None:
    """Import in the worker itself what its processes sweep with."""
    from celery_agents.producer import asked, beat  # noqa: F401


def _declare_again(name: str, earlier: Declaration, declaration: Declaration) -> None:
    """Let a task that is registered stand for another agent from now on; Celery's own options of it stay."""
    before, now = (name_of(each.stage_agent.function) for each in (earlier, declaration))
    if before != now:
        logger.warning("%s was declared by %s() and is now by %s()", name, before, now)
    earlier.runner, earlier.stage_agent = declaration.runner, declaration.stage_agent


def _run_of(function: Callable[..., Any]) -> Callable[..., str]:
    """Return the ``run`` of the Celery task, which looks like *function* to people, logs and documentation."""

    def run(self: StageTask, specs: object, carry: object = None) -> str:
        return self.process(specs, carry)

    name = name_of(function)
    run.__name__ = (
        name if name.isidentifier() else "agent"
    )  # Celery compiles it; a lambda's name is no identifier
    run.__qualname__ = getattr(function, "__qualname__", run.__name__)
    run.__doc__ = function.__doc__
    run.__module__ = function.__module__
    return run
