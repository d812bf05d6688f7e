"""When a worker starts: see whether the agents it will run can work, and stop it with one sentence if they cannot.

A wrong key, project or stage would fail every agent task that the worker gets; better to stop before it takes any.
Encord being down is another matter: the worker starts, says so, and goes on when Encord is back.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import celeryd_after_setup
from celery.utils.log import get_logger

from celery_agents.errors import SetupError
from celery_agents.redaction import redact
from celery_agents.task import StageTask

logger = get_logger(__name__)


def connect() -> None:
    """Check at every worker start from now on; calling it again changes nothing."""
    celeryd_after_setup.connect(_on_worker_start, dispatch_uid="celery_agents.worker.startup", weak=False)


def _on_worker_start(instance: Any, **_: Any) -> None:
    check_agents(instance.app)


def check_agents(app: Celery) -> None:
    """Resolve the stage of each agent whose queue this worker consumes.

    Resolving them here, before the pool forks, also lets all pool processes share what was read.

    Raises:
        SystemExit: A key, project or stage is wrong; why has been logged.
    """
    consumed = app.amqp.queues.consume_from
    tasks = [
        task for task in app.tasks.values() if isinstance(task, StageTask) and task.queue_name in consumed
    ]
    try:
        stages = [(task, task.agent_stage.uuid) for task in tasks]
    except SetupError as error:
        logger.critical("This worker cannot run its agents: %s", error)
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001  (whatever Encord or the network answers)
        reason = f"{type(error).__name__}: {redact(str(error))}"
        logger.warning("Encord cannot be reached (%s); agents run when it can be again.", reason)
        return
    for sentence in _stages_with_two_agents(stages):
        logger.critical("This worker cannot run its agents: %s", sentence)
        raise SystemExit(1)


def _stages_with_two_agents(stages: list[tuple[StageTask, Any]]) -> list[str]:
    """One agent may have been declared by a stage's title and another by its UUID, which only Encord can tell."""
    first: dict[Any, StageTask] = {}
    sentences = []
    for task, uuid in stages:
        other = first.setdefault(uuid, task)
        if other is not task:
            sentences.append(
                f"stage {uuid} has two agents, {other.name} and {task.name}; one stage, one agent."
            )
    return sentences
