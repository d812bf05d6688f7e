"""When a worker starts: see whether the agents it will run can work, and stop it with one sentence if they cannot.

A wrong key, project or stage would fail every agent task that the worker gets; better to stop before it takes any.
Encord being down is another matter: the worker starts, says so, and goes on when Encord is back.
"""

from __future__ import annotations

import gc
from typing import Any

from celery import Celery
from celery.utils.log import get_logger

from celery_agents import addresses
from celery_agents.errors import LedgerError, SetupError
from celery_agents.redaction import redact
from celery_agents.settings import Settings
from celery_agents.task import StageTask

logger = get_logger(__name__)

#: Content types that run code when they are read.
UNSAFE_CONTENT = frozenset({"pickle", "application/x-python-serialize"})
NO_LEDGER = (
    "There is no ledger: agents_ledger_url is None, or it is not set and neither broker nor result backend is a Redis. "
    "What is enqueued twice runs twice, an agent that kills its process does so again and again, cancelling does not "
    "outlast a worker, and nobody can ask what became of an agent task. To have one: agents_ledger_url = 'redis://…'"
)


def on_celeryd_init(conf: Any, **_: Any) -> None:
    """Stop a worker that has a URL which cannot be read."""
    # Before Celery reads the URLs, and quotes what it cannot read of them, which is their password.
    try:
        addresses.check(conf)
    except SetupError as error:
        raise SystemExit(f"This worker cannot run: {error}") from None  # nothing is logged yet


def on_celeryd_after_setup(instance: Any, **_: Any) -> None:
    """Check the agents of a worker that starts."""
    check_agents(instance.app)
    _keep_for_good()


def _keep_for_good() -> None:
    """Spare the garbage collector what is there now, the SDK above all: it stays until the worker ends.

    Each full collection would look through it, for a tenth of a worker's CPU time, and write to it: then the pool's
    processes share less of their memory.
    """
    gc.collect()
    gc.freeze()


def check_agents(app: Celery) -> None:
    """Resolve the stage of each agent whose queue this worker consumes.

    Resolving them here, before the pool forks, also lets all pool processes share what was read.

    Raises:
        SystemExit: A key, project or stage is wrong; why has been logged.
    """
    consumed = app.amqp.queues.consume_from
    _check_settings(app)
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


def _check_settings(app: Celery) -> None:
    try:
        settings = Settings.of(app)
        _open_ledgers(app)
    except (SetupError, LedgerError) as error:
        logger.critical("This worker cannot run its agents: %s", error)
        raise SystemExit(1) from None
    if settings.ledger_url is None:
        logger.warning(NO_LEDGER)
    if UNSAFE_CONTENT & set(app.conf.accept_content or ()):
        logger.warning(
            "This worker accepts pickle (accept_content): whoever can write to the broker can run code in it. "
            "Its agents read JSON only."
        )


def _open_ledgers(app: Celery) -> None:
    """Make the ledgers here, so that the pool's processes share what is imported; nothing is connected."""
    from celery_agents import processing  # noqa: F401

    for task in app.tasks.values():
        if isinstance(task, StageTask):
            _ = task.runner.ledger


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
