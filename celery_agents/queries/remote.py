"""Answer a query by a worker: claim, send, wait for the notification, and take back what waits in vain."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from celery._state import task_join_will_block

from celery_agents import claims
from celery_agents.claims import QUEUED_SECONDS, SENDING_SECONDS, Outgoing
from celery_agents.errors import Cancelled, LedgerError, SetupError
from celery_agents.messages import Outcome, TaskSpec
from celery_agents.producer.publishing import CONNECT_SECONDS, connected
from celery_agents.queries.listeners import is_listened
from celery_agents.queries.question import Answer, ImpossibleError, Outcomes, Question, UncertainError
from celery_agents.results import AgentResult
from celery_agents.sizes import usual
from celery_agents.snapshots import Snapshot
from celery_agents.status import Status
from celery_agents.task import StageTask
from celery_agents.waiting import Deadline

#: Seconds after which it is looked again whether anybody listens, while a message waits.
LOOK_SECONDS = 5.0


@dataclass(slots=True)
class _Sent:
    """A message under way."""

    message: Outgoing
    result: AgentResult
    subscription: Any  #: Celery's result, which subscribes to the notification as long as it lives
    is_taken_back: bool = False

    @property
    def has_ended(self) -> bool:
        return self.result.latest is not None and self.result.latest.is_final


def ask_workers(question: Question, task_uuids: Collection[UUID], begin_by: Deadline | None) -> Answer:
    """Send what no other message has, and wait for what becomes of it until the question's time is up.

    What still waits in its queue then is taken back, so that it is not run when nobody wants to know any more.

    Args:
        question: The query.
        task_uuids: The agent tasks.
        begin_by: Until when a message may wait for its worker, where there is something else to be tried. None: for as
            long as the question has time, also where nobody listens.

    Returns:
        What was decided; an agent task that is missing was taken back, or is with a worker that has not ended in time.

    Raises:
        ImpossibleError: Nobody listens and there is something else to be tried, or this is inside of a task.
        SetupError: The broker or the result backend cannot be used.
        Cancelled: Somebody has cancelled a message.
    """
    _check(question, begin_by)
    held: dict[UUID, str] = {}
    sent = _send(question, task_uuids, held)
    with _none_left_waiting(question, sent):
        for each in sent:
            _wait(question, each, begin_by)
    return Answer(_outcomes(question, sent), held)


def _check(question: Question, begin_by: Deadline | None) -> None:
    task = question.task
    if task_join_will_block():
        raise ImpossibleError(
            "A query inside of a task would hold a worker while it waits for another one; ask with LOCAL there."
        )
    if task.ignore_result:
        raise SetupError(f"What a worker answers is its result, and {task.name} has ignore_result=True.")
    if begin_by is not None and not is_listened(task, question.deadline):
        raise ImpossibleError(f"No worker listens to queue {task.queue_name!r}.")


def _send(question: Question, task_uuids: Collection[UUID], held: dict[UUID, str]) -> list[_Sent]:
    def skip(others: Mapping[UUID, str]) -> None:
        held.update(others)

    specs, size = question.some(task_uuids), usual(question.task.stage_agent.options.batch_size)
    batches = [specs[start : start + size] for start in range(0, len(specs), size)]
    # Longer than the message may wait: it expires with the question, or else is claimed as a sweep's.
    ttl = min(question.seconds_left, QUEUED_SECONDS) + SENDING_SECONDS
    outgoing = claims.claim(question.ledger, question.claimed_at, batches, ttl=ttl, on_skipped=skip)
    if not outgoing:
        return []
    try:
        return _publish(question, outgoing)
    except BaseException:
        claims.release(question.ledger, question.claimed_at, outgoing)
        raise


def _publish(question: Question, outgoing: Sequence[Outgoing]) -> list[_Sent]:
    task, is_connected = question.task, False
    options = {"expires": question.expires} if question.expires else {}
    try:
        with connected(task.app, len(outgoing), question.deadline.at_most(CONNECT_SECONDS)) as producer:
            is_connected = True
            return [_publish_one(task, message, producer, options) for message in outgoing]
    except SetupError as error:
        if is_connected and question.ledger is None:
            raise UncertainError(str(error)) from error
        raise


def _publish_one(task: StageTask, message: Outgoing, producer: Any, options: Mapping[str, Any]) -> _Sent:
    specs = [text for _, text in message.specs]
    sent = task.apply_async([specs], task_id=message.message_id, producer=producer, **options)
    return _Sent(message, AgentResult(sent, task.app, total=len(specs)), sent)


def _wait(question: Question, sent: _Sent, begin_by: Deadline | None) -> None:
    while True:
        seconds = question.deadline.at_most(LOOK_SECONDS)
        if begin_by is not None and not begin_by.is_over():
            seconds = begin_by.at_most(seconds)
        # Once also where time is up: it may have ended while another one was waited for.
        if sent.result.wait(seconds).is_final or question.deadline.is_over():
            return
        if begin_by is not None and (begin_by.is_over() or not is_listened(question.task, question.deadline)):
            sent.is_taken_back = _take_back(question, sent)
            if sent.is_taken_back:
                return


@contextmanager
def _none_left_waiting(question: Question, sent: Sequence[_Sent]) -> Iterator[None]:
    """Take back what waits in its queue when nobody waits for it any more, for whatever reason."""
    try:
        yield
    finally:
        for each in sent:
            if not (each.has_ended or each.is_taken_back):
                each.is_taken_back = _take_back(question, each)


def _take_back(question: Question, sent: _Sent) -> bool:
    """Take a message out of its queue; return whether it was there, and will not be run."""
    if question.ledger is None:
        return False  # nobody can say; it expires by itself
    try:
        return question.ledger.withdraw(question.claimed_at, sent.message.message_id, QUEUED_SECONDS)
    except LedgerError:
        return False


def _outcomes(question: Question, sent: Sequence[_Sent]) -> Outcomes:
    found: Outcomes = {}
    for each in sent:
        if each.has_ended and not each.is_taken_back:
            assert each.result.latest is not None  # it has ended
            found |= _decided(each.result.latest, each.message)
            if question.once:
                _forget(each.result)
    return found


def _decided(snapshot: Snapshot, message: Outgoing) -> Outcomes:
    outcomes = snapshot.completion.outcomes if snapshot.completion else []
    found = {each.task_uuid: each for each in outcomes if each.task_uuid}
    missing = [(uuid, text) for uuid, text in message.specs if uuid not in found]
    if missing and snapshot.status is Status.CANCELLED:
        raise Cancelled(f"Message {snapshot.id} was cancelled; {len(missing)} agent tasks are as they were.")
    if snapshot.status in (Status.FAILED, Status.TIMED_OUT):
        # Its process has died, or was ended; Celery tells of the message as a whole.
        error = next(iter(snapshot.errors.values()), None)
        found |= {uuid: TaskSpec.decode(text).decided(Outcome.FAILED, error=error) for uuid, text in missing}
    return found


def _forget(result: AgentResult) -> None:
    with suppress(NotImplementedError):  # RPC: what has been read is gone anyway
        result.forget()
