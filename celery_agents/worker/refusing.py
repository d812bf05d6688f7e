"""What becomes of a message that a worker refuses: its result says why, and its claims are given back.

Celery drops such a message with a log entry of a page, and stores nothing for most of them: whoever waits for it would
wait for ever, and its agent tasks would stay claimed for a day. Nothing is lost: they are still at their stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.app.task import Context
from celery.signals import task_rejected
from celery.utils.log import get_logger

from celery_agents.errors import AgentTaskError, SpecError
from celery_agents.messages import (
    DETAIL_LIMIT,
    Outcome,
    TaskCompletionResult,
    TaskError,
    TaskOutcome,
    TaskSpec,
    raw_text,
)
from celery_agents.redaction import excerpt
from celery_agents.settings import Settings
from celery_agents.task import StageTask
from celery_agents.worker import unclaiming
from celery_agents.worker.incoming import Incoming

logger = get_logger(__name__)


def refuse(
    task: StageTask, consumer: Any, incoming: Incoming, specs: Sequence[object] | None, why: SpecError
) -> None:
    """Tell everybody who may ask that a message for *task* was thrown away; never raises.

    Args:
        task: For which it was.
        consumer: Celery's, for its events.
        incoming: The message.
        specs: What it carries; None where that could not be found out.
        why: What was wrong with it.
    """
    reason = excerpt(str(why), DETAIL_LIMIT)
    logger.error("Message %s for %s was refused. %s", incoming.id, task.name, reason)
    if incoming.id is not None:
        failure = store(task.app, incoming, specs, SpecError(f"This message was refused. {reason}"))
        _send_event(consumer, incoming.id, failure)
        unclaiming.release(task, incoming.id, specs)
    task_rejected.send(sender=consumer, message=incoming.message, exc=why)


def store(app: Any, incoming: Incoming, specs: Sequence[object] | None, error: SpecError) -> AgentTaskError:
    """Store FAILURE as the result of a message, with an outcome for each of its agent tasks; never raises."""
    reason = TaskError.from_exception(error, "spec")
    outcomes = [_failed(spec, reason) for spec in ([incoming.message.body] if specs is None else specs)]
    failure = AgentTaskError(str(error), TaskCompletionResult.from_outcomes(outcomes, None).model_dump_json())
    properties = incoming.message.properties or {}
    # Where the reply of an RPC backend goes, and who else waits for it.
    replies = {"reply_to": properties.get("reply_to"), "correlation_id": properties.get("correlation_id")}
    request = Context(**replies, **incoming.canvas(Settings.of(app)))
    try:
        app.backend.mark_as_failure(incoming.id, failure, request=request)
    except Exception as trouble:  # noqa: BLE001  (whatever the backend raises; the worker must not stop for it)
        logger.warning("Why message %s was dropped is not stored: %s", incoming.id, type(trouble).__name__)
    return failure


def _send_event(consumer: Any, message_id: str, failure: AgentTaskError) -> None:
    if consumer.event_dispatcher:
        consumer.event_dispatcher.send("task-failed", uuid=message_id, exception=repr(failure))


def _failed(raw: object, reason: TaskError) -> TaskOutcome:
    try:
        spec = TaskSpec.decode(raw)
    except SpecError:
        return TaskOutcome(outcome=Outcome.FAILED, error=reason, spec=raw_text(raw))
    return spec.decided(Outcome.FAILED, error=reason)
