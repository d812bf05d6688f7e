"""Answer a query in this process, by the same direct call as ``pre_label(spec)``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from uuid import UUID

from celery.utils.nodenames import anon_nodename

from celery_agents import claims
from celery_agents.batch import Batch, Execution
from celery_agents.claims import SENDING_SECONDS
from celery_agents.delivery import Delivery, Unledgered
from celery_agents.direct import Patience
from celery_agents.errors import Cancelled
from celery_agents.executor import execute
from celery_agents.ledgered import Ledgered
from celery_agents.processing import PATIENCE_HERE
from celery_agents.queries.question import Answer, Outcomes, Question
from celery_agents.supervision import Supervision


def run_here(question: Question, task_uuids: Collection[UUID]) -> Answer:
    """Run the agent on these, as far as no other message has them; the claims are held meanwhile.

    An agent cannot be interrupted here, but where it tells of its progress it is told that time is up.

    Raises:
        Cancelled: Somebody has cancelled it.
        EncordException: Encord cannot be reached, or refuses.
        SetupError: The key, the project or the stage is not there.
    """
    held: dict[UUID, str] = {}

    def skip(others: Mapping[UUID, str]) -> None:
        held.update(others)

    batches = [question.some(task_uuids)]
    outgoing = claims.claim(
        question.ledger, question.claimed_at, batches, ttl=SENDING_SECONDS, on_skipped=skip
    )
    outcomes: Outcomes = {}
    for message in outgoing:
        try:
            outcomes = _Call(question, message.message_id).work_off([text for _, text in message.specs])
        finally:
            claims.release(question.ledger, question.claimed_at, [message])
    return Answer(outcomes, held)


class _Call:
    """One direct call, known to the ledger as a message that is never sent."""

    def __init__(self, question: Question, message_id: str) -> None:
        self._task = question.task
        self._ledger = question.ledger
        self._message_id = message_id
        self._expires = question.expires
        self._patience = Patience(question.deadline.at_most(PATIENCE_HERE))

    def work_off(self, specs: list[object]) -> Outcomes:
        batch = Batch(specs, max_spec_bytes=self._task.runner.settings.max_spec_bytes)
        while True:
            delivery = self._delivery()
            execution, goes_on = self._attempt(batch, delivery)
            if not goes_on:
                execution = _given_up(execution)
            delivery.end(execution, batch)
            if not goes_on:
                return {each.task_uuid: each for each in execution.outcomes if each.task_uuid}
            delivery.close()
            batch = replace(batch, specs=execution.again, carry=execution.carry)

    def _attempt(self, batch: Batch, delivery: Delivery) -> tuple[Execution, bool]:
        """Return what came of it, and whether there is to be another attempt."""
        stage_agent = self._task.stage_agent
        watch = Supervision(
            self._message_id, delivery, limits=stage_agent.options.limits, expires=self._expires
        )
        execution = execute(
            batch,
            stage_agent.agent_for(self._task),
            self._task.runner.gateway,
            _report_nothing,
            delivery=delivery,
            watch=watch,
        )
        if execution.again and watch.is_cancelled():
            delivery.end(execution, batch)
            raise Cancelled("The query was cancelled; what is not decided is as it was.")
        goes_on = bool(execution.again) and not watch.is_stopping()
        return execution, goes_on and self._patience.wait(execution.countdown)

    def _delivery(self) -> Delivery:
        if self._ledger is None:
            return Unledgered()
        return Ledgered(self._ledger, self._message_id, anon_nodename())


def _report_nothing(done: int, failed: int) -> None:
    """Report to nobody: a query returns when it is through."""


def _given_up(execution: Execution) -> Execution:
    """Return it with FAILED for what has failed again and again; what was not begun, or left, stays open."""
    failed = execution.carry.errors
    again = [raw for raw, uuid in zip(execution.again, execution.waiting, strict=True) if uuid in failed]
    return replace(execution, outcomes=replace(execution, again=again).given_up(), again=[], waiting=[])
