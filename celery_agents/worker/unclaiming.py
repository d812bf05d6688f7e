"""Give back what a message has claimed, where it is known who claimed it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from celery import Celery
from celery.utils.log import get_logger

from celery_agents.errors import SpecError
from celery_agents.messages import TaskSpec
from celery_agents.redaction import redact
from celery_agents.results import ledgers_of
from celery_agents.task import StageTask

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger

logger = get_logger(__name__)


def release(task: StageTask, message_id: str, specs: Sequence[object] | None) -> None:
    """Release what *message_id* has claimed at the stage of *task*; where that fails the claims lapse.

    Args:
        task: For which the message was.
        message_id: Its Celery id.
        specs: What it carries; None where that is not known. Unless all of them can be read, the claims of the whole
            stage are looked through.
    """
    if task.runner.ledger is None:
        return
    read = decoded(specs or (), task.runner.settings.max_spec_bytes)
    uuids = [spec.uuid for spec in read] if specs and len(read) == len(specs) else None
    try:
        task.runner.ledger.release(task.agent_stage.uuid, message_id, uuids)
    except Exception as error:  # noqa: BLE001  (a claim that stays lapses; the worker must not stop for it)
        _complain(message_id, error)


def release_anywhere(app: Celery, message_id: str, specs: Sequence[TaskSpec]) -> None:
    """Release what *message_id* has claimed for *specs*, at the projects and stages that they name themselves."""
    ledgers: dict[UUID, Ledger] = {ledger.keys.project_hash: ledger for ledger in ledgers_of(app)}
    claimed: defaultdict[tuple[UUID, UUID], list[UUID]] = defaultdict(list)
    for spec in specs:
        if spec.project_hash in ledgers and spec.stage_uuid:
            claimed[spec.project_hash, spec.stage_uuid].append(spec.uuid)
    for (project_hash, stage_uuid), uuids in claimed.items():
        try:
            ledgers[project_hash].release(stage_uuid, message_id, uuids)
        except Exception as error:  # noqa: BLE001  (as above)
            _complain(message_id, error)


def decoded(specs: Sequence[object], max_bytes: int) -> list[TaskSpec]:
    """Return those of *specs* that can be read."""
    found = []
    for spec in specs:
        try:
            found.append(TaskSpec.decode(spec, max_bytes))
        except SpecError:
            continue
    return found


def _complain(message_id: str, error: Exception) -> None:
    logger.warning("Message %s keeps its claims until they lapse: %s", message_id, redact(str(error)))
