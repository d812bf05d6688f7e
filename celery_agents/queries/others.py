"""Wait for what becomes of an agent task that another message has."""

from __future__ import annotations

import time
from uuid import UUID

from celery_agents import waiting
from celery_agents.errors import LedgerError
from celery_agents.messages import TaskOutcome
from celery_agents.queries.question import Question

#: Seconds between two looks, at most.
LONGEST_PAUSE = 0.5


def outcome_by_other(question: Question, task_uuid: UUID, message_id: str) -> TaskOutcome | None:
    """Return what *message_id* has decided about an agent task; None where it has given it up, or time is up."""
    pauses = waiting.pauses(LONGEST_PAUSE)
    while not question.deadline.is_over():
        try:
            is_held, outcome = _look(question, task_uuid, message_id)
        except LedgerError:
            is_held, outcome = True, None
        if outcome is not None or not is_held:
            return outcome
        time.sleep(question.deadline.at_most(next(pauses)))
    return None


def _look(question: Question, task_uuid: UUID, message_id: str) -> tuple[bool, TaskOutcome | None]:
    ledger, stage = question.ledger, question.claimed_at
    assert ledger is not None  # it has told of the other message
    # In this order: an outcome is recorded in one step with the release of its claim.
    claim = ledger.who_holds(stage, [task_uuid]).get(task_uuid)
    records = ledger.outcomes_of([task_uuid]).records
    mine = [each for each in records if (each.message_id, each.stage_uuid) == (message_id, stage)]
    return claim is not None and claim.message_id == message_id, mine[0].outcome if mine else None
