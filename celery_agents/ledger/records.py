"""How an outcome is kept: a line for the scripts, then JSON for us.

    <token> <milliseconds> <kind> <data hash> <message id> <error type>
    {"outcome": {…}, "attempts": 1, "where": "worker@host"}

The scripts compare tokens and filter by error type without decoding JSON. The token and the time are put in front by
the script that writes, so that they are the server's. The JSON of the outcome leaves out what the line, or the name
under which the record is kept, says already. What is kept in a group, see ``groups``, is told in this form as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from celery_agents.messages import Outcome, TaskError, TaskOutcome
from celery_agents.redaction import bounded

#: Longest record, in bytes; what has more was not written by us.
RECORD_LIMIT = 64_000
#: Longest record without its spec. An error with its traceback has 8,000 characters, so several attempts fit; what has
#: more is kept with less, see ``_smaller``.
BODY_LIMIT = 32_000
#: How many of the errors of earlier attempts are kept where all are too many: the first ones and the last ones.
EARLIER_ERRORS_KEPT = 4

#: Fields of an outcome that its record's name or first line has.
TOLD_OUTSIDE = {"task_uuid", "data_hash", "outcome"}
_NAME = re.compile(r"([0-9a-f]{32})/([0-9a-f]{32})")
_HEAD = re.compile(
    r"\d{1,16} (?P<at>\d{1,15}) (?P<kind>[A-Z]+) (?P<data_hash>[0-9a-f]{32}|-) (?P<message_id>\S+) \S+"
)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The outcome of one agent task, to be recorded alone, whether others are like it or not.

    With a ``spec``, what FAILED is kept among the failures, to be replayed.
    """

    outcome: TaskOutcome
    attempts: int = 1
    spec: str | None = None  #: JSON text


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one agent task at one stage, as the ledger knows it."""

    task_uuid: UUID
    stage_uuid: UUID
    message_id: str
    at: datetime  #: when it was recorded, in UTC, by the server's clock
    where: str  #: the worker
    attempts: int
    outcome: TaskOutcome
    spec: str | None = None  #: JSON text, of failures only; None also where it was too long to be kept


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: dict[str, Any]
    attempts: int = 1
    where: str = ""
    spec: str | None = None


def encode(settlements: Iterable[Settlement], message_id: str, where: str) -> str:
    """Return *settlements* as ``settle.lua`` takes them, in one text; *where* is JSON.

    Of each a line with agent task, kind, and the lengths in bytes of its record and of its failure, and then those two.
    A hundred arguments for Redis would cost more than what is done with them.
    """
    return "".join([part for each in settlements for part in _encode(each, message_id, where)])


def _encode(settlement: Settlement, message_id: str, where: str) -> tuple[str, str, str]:
    outcome = settlement.outcome
    assert outcome.task_uuid is not None  # the ledger leaves out what has none
    kind, data_hash = outcome.outcome.value, outcome.data_hash.hex if outcome.data_hash else "-"
    error_type = re.sub(r"[^!-~]", "_", outcome.error.type[:200]) if outcome.error else ""
    head = f"{kind} {data_hash} {message_id} {error_type or '-'}\n"
    body = f'{_fitting(outcome)},"attempts":{settlement.attempts},"where":{where}'
    record, failure = f"{head}{body}}}", ""
    if kind == Outcome.FAILED and settlement.spec is not None:
        failure = f'{head}{body},"spec":{json.dumps(settlement.spec)}}}'
        if size_of(failure) > RECORD_LIMIT:
            failure = record
    return f"{outcome.task_uuid.hex} {kind} {size_of(record)} {size_of(failure)}\n", record, failure


def size_of(text: str) -> int:
    """Return how many bytes *text* has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _fitting(outcome: TaskOutcome) -> str:
    """Return the beginning of a record's JSON, with less of the outcome where it is too long."""
    # Written by hand: a batch has a hundred of these, and a model for each would cost twice as much.
    text = _beginning(outcome)
    for smaller in _smaller(outcome) if size_of(text) > BODY_LIMIT else ():
        text = _beginning(smaller)
        if size_of(text) <= BODY_LIMIT:
            break
    return text


def _beginning(outcome: TaskOutcome) -> str:
    return f'{{"outcome":{outcome.model_dump_json(exclude_defaults=True, exclude=TOLD_OUTSIDE)}'


def _smaller(outcome: TaskOutcome) -> Iterator[TaskOutcome]:
    """Yield *outcome* with less and less of what can be done without; the last one always fits."""
    earlier = [each.model_copy(update={"traceback": None}) for each in outcome.earlier_errors]
    yield outcome.model_copy(update={"earlier_errors": tuple(earlier)})
    half = EARLIER_ERRORS_KEPT // 2
    few = (*earlier[:half], *earlier[half:][-half:])
    yield outcome.model_copy(update={"earlier_errors": few})
    error = outcome.error
    yield TaskOutcome(
        outcome=outcome.outcome,
        task_uuid=outcome.task_uuid,
        data_hash=outcome.data_hash,
        pathway=outcome.pathway,
        detail="More is known, but it was too long for the ledger.",
        error=error
        and TaskError(type=error.type[:200], detail=bounded(error.detail, 1_000), step=error.step),
    )


def decode(name: str, value: str) -> Record:
    """Read a record.

    Raises:
        ValueError: It is not one; the sentence says which and why.
    """
    where = _NAME.fullmatch(name)
    subject = f"agent task {UUID(where[1])} at stage {UUID(where[2])}" if where else repr(bounded(name, 100))
    try:
        if where is None or not value:
            raise ValueError("it is too long" if not value else "its name is not one of an agent task")
        return _decoded(UUID(where[1]), UUID(where[2]), value)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"The ledger's record of {subject} cannot be read: {_reason(error)}.") from None


def _decoded(task_uuid: UUID, stage_uuid: UUID, value: str) -> Record:
    line, _, text = value.partition("\n")
    head = _HEAD.fullmatch(line)
    if head is None:
        raise ValueError("its first line is not one of a record")
    body = _Body.model_validate_json(text)
    data_hash = None if head["data_hash"] == "-" else head["data_hash"]
    outside = {"task_uuid": task_uuid, "data_hash": data_hash, "outcome": head["kind"]}
    return Record(
        task_uuid=task_uuid,
        stage_uuid=stage_uuid,
        message_id=head["message_id"],
        at=datetime.fromtimestamp(int(head["at"]) / 1000, UTC),
        where=body.where,
        attempts=body.attempts,
        outcome=TaskOutcome.model_validate({**body.outcome, **outside}),
        spec=body.spec,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'its JSON'}: {first['msg']}"
    return str(error)


def decoded(named: Iterable[tuple[Any, ...]]) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """Read records; return them, newest first, and what is to be said of those that cannot be read."""
    records: list[Record] = []
    complaints: list[str] = []
    for name, value in named:
        try:
            records.append(decode(name, value))
        except ValueError as error:
            complaints.append(str(error))
    return tuple(sorted(records, key=lambda each: each.at, reverse=True)), tuple(complaints)
