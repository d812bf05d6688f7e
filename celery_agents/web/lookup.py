"""What is known of messages, agent tasks and sweeps: of those of the agents that are served, and of nothing else.

A result backend answers for whatever Celery task, and takes an id that nobody knows for one that waits. So the ledger
is asked whose a message is: it knows those that were sent from here, that a sweep from here has sent, and whose
delivery has begun. What is stored for one that has ended tells by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery_agents import backends, results
from celery_agents.errors import AgentsError
from celery_agents.messages import TaskError
from celery_agents.producer.asked import SWEEP, noted_for
from celery_agents.results import AgentResult
from celery_agents.snapshots import Snapshot
from celery_agents.status import Status, status_of
from celery_agents.web.problems import UnknownError
from celery_agents.web.served import Served, encord_explained

if TYPE_CHECKING:
    from celery import Celery

    from celery_agents.ledger import Record


def sent_as(served: Served, message_id: str) -> str | None:
    """Return what the ledgers have noted of a message: ``SWEEP``, or how many specs it carries, 0 for not known.

    Of a message that somebody else has sent only its deliveries are known. That is noted, because its delivery ends a
    moment before its result is stored.
    """
    for ledger in served.ledgers:
        noted = ledger.sent_as(message_id)
        if noted == "":
            ledger.note_sent(message_id, "0", noted_for(served.app))
        if noted is not None:
            return noted or "0"
    return None


def message(served: Served, message_id: str) -> AgentResult:
    """Return the result of a message, looked at once.

    Raises:
        UnknownError: It is not known, or not a message for agents.
        SetupError: There is no ledger, or no result backend that can be read.
        LedgerError: The ledger's Redis cannot be used.
    """
    noted = sent_as(served, message_id)
    # Known to have been sent, it is QUEUED as long as nothing is stored.
    total = int(noted) if noted not in (None, SWEEP) else None
    result = AgentResult(message_id, served.app, total=total)
    if total is None and not _is_of_agents(result.snapshot()):
        raise UnknownError(
            f"No message {message_id[:200]!r} of the agents here is known: it was never sent, or that is no longer "
            "kept, or it was sent by others and waits in its queue."
        )
    result.snapshot()
    return result


def _is_of_agents(snapshot: Snapshot) -> bool:
    if snapshot.completion is not None:
        return True
    # The base class itself stands for what cannot be read.
    return isinstance(snapshot.failure, AgentsError) and type(snapshot.failure) is not AgentsError


def agent_task(served: Served, uuid: UUID) -> dict[str, Any]:
    """Return what is known of an agent task, or of a data unit's: the message that has it, and its last outcome.

    Raises:
        UnknownError: Nothing is known of it.
        SetupError: There is no ledger, no result backend that can be read, or no record, and Encord cannot be reached:
            it is asked once where the stages are.
        LedgerError: The ledger's Redis cannot be used.
    """
    ledgers = served.ledgers
    with encord_explained("what waits at the stages"):
        message_id = results.message_of(uuid, served.tasks)
    if message_id is None:
        raise UnknownError(
            f"Nothing is known of agent task or data unit {uuid}: never run, or no longer kept."
        )
    record = _newest_record(served, uuid)
    is_decided = record is not None and record.message_id == message_id
    if not is_decided:
        # So that it can be asked for by its id too: nobody has noted it who has sent it elsewhere.
        ledgers[0].note_sent(message_id, sent_as(served, message_id) or "0", noted_for(served.app))
    snapshot = AgentResult(message_id, served.app, total=None if is_decided else 0).snapshot()
    return {
        "id": str(uuid),
        "message": snapshot.as_dict(),
        "outcome": record.outcome.model_dump(mode="json") if record else None,
        "decided_at": record.at.isoformat() if record else None,
        "decided_by": record.message_id if record else None,
    }


def _newest_record(served: Served, uuid: UUID) -> Record | None:
    records = [
        record
        for ledger in served.ledgers
        for found in (ledger.outcomes_of([uuid]), ledger.outcomes_of_data([uuid]), ledger.failures_of([uuid]))
        for record in found.records
    ]
    return max(records, key=lambda each: each.at, default=None)


def sweep(served: Served, message_id: str) -> dict[str, Any]:
    """Return what is known of a sweep that was asked for.

    Raises:
        UnknownError: It is not known.
        SetupError: There is no ledger, or no result backend that can be read.
        LedgerError: The ledger's Redis cannot be used.
    """
    if sent_as(served, message_id) != SWEEP:
        raise UnknownError(
            f"No sweep {message_id[:200]!r} is known: nobody asked for it, or a day has passed."
        )
    return {"id": message_id, **_stored_sweep(served.app, message_id)}


def _stored_sweep(app: Celery, message_id: str) -> dict[str, Any]:
    stored = next(backends.read(backends.backend_of(app), [message_id]))
    if isinstance(stored, Exception):
        return {"status": Status.FAILED, "detail": "Its result cannot be read.", "report": None}
    value = stored.get("result")
    failure = TaskError.from_exception(value, "agent").detail if isinstance(value, BaseException) else None
    is_report = stored["status"] == "SUCCESS" and isinstance(value, dict)
    return {
        "status": status_of(str(stored["status"]), is_known=True),
        "detail": failure,
        "report": value if is_report else None,
    }
