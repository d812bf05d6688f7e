"""Give back the claims of messages that a worker throws away: revoked ones, and those whose ``expires`` has passed."""

from __future__ import annotations

from typing import Any

from celery.signals import task_revoked
from celery.utils.log import get_logger

from celery_agents.errors import SpecError
from celery_agents.messages import TaskSpec, as_specs
from celery_agents.redaction import redact
from celery_agents.task import StageTask

logger = get_logger(__name__)


def connect() -> None:
    """Release claims from now on; calling it again changes nothing."""
    task_revoked.connect(_on_revoked, dispatch_uid="celery_agents.worker.releasing", weak=False)


def _on_revoked(sender: Any, request: Any, **_: Any) -> None:
    if isinstance(sender, StageTask) and request.args:
        try:
            release(sender, request.id, request.args[0])
        except Exception as error:  # noqa: BLE001  (a claim that stays lapses; the worker must not stop for it)
            logger.warning("Message %s keeps its claims until they lapse: %s", request.id, redact(str(error)))


def release(task: StageTask, message_id: str, specs: object) -> None:
    """Release what *message_id* has claimed for its *specs*; a spec that cannot be read has claimed nothing.

    Raises:
        LedgerError: The ledger cannot be used.
        EncordException: The stage is not known yet, and Encord cannot be reached.
    """
    if task.runner.ledger is not None:
        claimed = [uuid for spec in as_specs(specs) if (uuid := _uuid_of(spec))]
        task.runner.ledger.release(task.agent_stage.uuid, message_id, claimed)


def _uuid_of(spec: object) -> Any:
    try:
        return TaskSpec.decode(spec).uuid
    except SpecError:
        return None
