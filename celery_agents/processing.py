"""Process one message: execute its batch, and tell the ledger and Celery what came of it. Or one direct call."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from celery import Task, states
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger
from celery.utils.time import maybe_iso8601, maybe_make_aware

from celery_agents.batch import Batch, Execution
from celery_agents.delivery import Delivery, Unledgered
from celery_agents.direct import Patience, work_off
from celery_agents.errors import AgentTaskError, CancelledMessageError, LedgerError, RetryingError
from celery_agents.executor import execute
from celery_agents.ledgered import Ledgered
from celery_agents.messages import Carry, Outcome, ProgressReport, TaskCompletionResult
from celery_agents.origins import queue_of
from celery_agents.reporter import Reporter
from celery_agents.sizes import AUTO
from celery_agents.status import PROGRESS
from celery_agents.supervision import Limiting, Supervision
from celery_agents.verdicts import is_failure, log_failures, sentence
from celery_agents.watch import SHARE_OF_TIME_LIMIT

if TYPE_CHECKING:
    from celery_agents.task import StageTask

logger = get_task_logger(__name__)

#: Seconds that a direct call waits in all for passing trouble to pass, before it gives up on what is left.
PATIENCE_HERE = 30.0


class SupersededError(Ignore):  # type: ignore[misc]  # celery ships no types
    """The message is another worker's by now, to whom it was delivered again."""


def process(task: StageTask, specs: list[object], carry: object) -> str:
    """Execute the specs of the message that *task* has; return the completion result's JSON.

    Raises:
        AgentTaskError: The stage's failure policy calls the message failed.
        celery.exceptions.Retry: Something is worth another attempt.
        celery.exceptions.Ignore: It was cancelled or has expired, or is another worker's by now.
        celery.exceptions.Reject: What goes round again could not be sent.
    """
    batch = _batch(task, specs, carry)
    delivery = _delivery(task)
    began = time.monotonic()
    with _reporter(task, len(batch.specs) + len(batch.carry.outcomes)) as reporter, task.shows_request():
        supervision = _supervision(task, delivery, reporter)
        execution = execute(
            batch,
            task.stage_agent.agent_for(task),
            task.runner.gateway,
            reporter,
            delivery=delivery,
            watch=supervision,
        )
    decided = execution.outcomes[len(batch.carry.outcomes) :]
    number = sum(each.outcome is not Outcome.GONE for each in decided)
    _note_pace(task, execution, number, time.monotonic() - began)
    delivery.end(execution, batch)
    if delivery.is_superseded():
        raise SupersededError("A newer delivery of this message tells what became of it.")
    log_failures(decided, logger)
    result = TaskCompletionResult.from_outcomes(execution.outcomes, execution.stage_uuid)
    if execution.again and (supervision.is_cancelled() or supervision.is_expired()):
        delivery.release(execution.waiting)
        delivery.close()
        raise _left(task, execution, result, is_expired=supervision.is_expired())
    if execution.again:
        raise _again(task, execution, result, delivery)
    return _told(task, execution, result)


def _batch(task: StageTask, specs: list[object], carry: object) -> Batch:
    batch = Batch(specs, Carry.decode(carry), task.runner.settings.max_spec_bytes)
    # Its connection may have broken after its retry was sent. The ledger knows of no death then, and what is gone
    # from the stage may have been moved by this very message, with an answer that was lost.
    is_redelivered = (task.request.delivery_info or {}).get("redelivered")
    return batch.after_crash() if is_redelivered else batch


def _delivery(task: StageTask) -> Delivery:
    ledger = task.runner.ledger
    # task_always_eager: nothing was sent, so nothing can come twice.
    if ledger is None or task.request.is_eager:
        return Unledgered()
    return Ledgered(
        ledger,
        task.request.id,
        task.request.hostname,
        max_crashes=task.runner.settings.max_crashes,
        redelivered_after=task.runner.redelivered_after,
    )


def _reporter(task: StageTask, total: int) -> Reporter:
    # What `update_state` does; but that looks for the backend and the request of the thread that calls it.
    backend, request = task.backend, task.request

    def write(report: ProgressReport) -> None:
        backend.store_result(request.id, report.model_dump(mode="json"), PROGRESS, request=request)

    is_wanted = not (task.ignore_result or request.ignore_result or request.is_eager)
    return Reporter(write if is_wanted else None, total)


def _supervision(task: StageTask, delivery: Delivery, reporter: Reporter) -> Supervision:
    _, soft = task.request.timelimit or (None, None)
    seconds = soft or task.soft_time_limit or task.app.conf.task_soft_time_limit
    return Supervision(
        task.request.id,
        delivery,
        # A batch that would run into its soft time limit ends before; its rest goes round with a new limit.
        seconds=seconds * SHARE_OF_TIME_LIMIT if seconds else None,
        limits=task.stage_agent.options.limits,
        expires=_as_instant(task.request.expires),
        hear=reporter.hear,
    )


def _as_instant(expires: str | datetime | None) -> datetime | None:
    """Return a message's ``expires`` as Celery sends it, as an instant."""
    if expires is None:
        return None
    instant: datetime = maybe_make_aware(maybe_iso8601(expires))
    return instant


def _note_pace(task: StageTask, execution: Execution, number: int, seconds: float) -> None:
    """Tell producers how long agent tasks take, where they go by that."""
    ledger, stage_uuid = task.runner.ledger, execution.stage_uuid
    is_asked_for = task.stage_agent.options.batch_size == AUTO and not task.request.is_eager
    if is_asked_for and ledger is not None and stage_uuid is not None and number:
        with suppress(LedgerError):
            ledger.note_pace(stage_uuid, number, seconds)


def _told(task: StageTask, execution: Execution, result: TaskCompletionResult) -> str:
    """Return the result of a message in which all is decided; AgentTaskError where that is a failure."""
    failed = [each for each in execution.outcomes if each.outcome is Outcome.FAILED]
    total = len(execution.outcomes)
    if is_failure(len(failed), total, task.stage_agent.options.failure_policy):
        raise AgentTaskError(sentence(failed, total), result.model_dump_json())
    return result.model_dump_json()


def _again(
    task: StageTask, execution: Execution, result: TaskCompletionResult, delivery: Delivery
) -> Exception:
    again: Exception
    try:
        # Not the task's own retry, which is for agents.
        again = Task.retry(
            task,
            args=[execution.again],
            kwargs={"carry": execution.carry.encode()},
            countdown=execution.countdown,
            queue=queue_of(task.app, task.request.delivery_info or {}),
            max_retries=task.request.retries
            + 1,  # tries are counted by the executor; an interruption is none
            exc=RetryingError(_why_again(execution), result.model_dump_json(), total=execution.total),
            throw=False,
        )
    except Reject as refusal:
        # celery.app.task.Task.retry: the retry could not be sent. It would then drop the message.
        again = Reject(refusal.reason, requeue=True)
    else:
        delivery.close()
    return again


def _why_again(execution: Execution) -> str:
    number = len(execution.again)
    of_all = f"{number} of {execution.total} agent tasks go round again"
    if not execution.trouble:
        reason = (
            "Encord is not to be called now"
            if execution.countdown
            else "the worker is stopping, or the time limit near"
        )
        return f"{of_all}: {reason}"
    latest = execution.trouble[-1]
    return f"{of_all}: {latest.type}: {latest.detail}"


def _left(
    task: StageTask, execution: Execution, result: TaskCompletionResult, *, is_expired: bool
) -> Exception:
    """End a message that was cancelled, or that an agent was told has expired: the rest stays as it is."""
    left = len(execution.again)
    cancelled = f"It was cancelled; {left} of {execution.total} agent tasks were left as they were."
    # The word by which Celery's own TaskRevokedError tells an expired message from a revoked one, see `status`.
    reason = "expired" if is_expired else cancelled
    error = CancelledMessageError(reason, result.model_dump_json(), total=execution.total)
    task.backend.mark_as_failure(task.request.id, error, request=task.request, state=states.REVOKED)
    task.send_event("task-revoked", terminated=False, signum=None, expired=is_expired)
    ignored: Exception = Ignore(str(error))
    return ignored


def process_here(task: StageTask, specs: list[object]) -> str:
    """Execute without Celery: passing trouble is waited for in place, for a bounded time."""
    agent, encord = task.stage_agent.agent_for(task), task.runner.gateway
    watch = Limiting(task.stage_agent.options.limits)
    execution = work_off(
        Batch(specs, max_spec_bytes=task.runner.settings.max_spec_bytes),
        lambda batch: execute(batch, agent, encord, _report_nothing, watch=watch),
        Patience(PATIENCE_HERE).wait,
    )
    outcomes = execution.given_up()
    return TaskCompletionResult.from_outcomes(outcomes, execution.stage_uuid).model_dump_json()


def _report_nothing(done: int, failed: int) -> None:
    """Report to nobody: a direct call returns when it is through."""
