"""The append-only record of every write that the sandbox accepted or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from .identifiers import Clock

MOVES = frozenset({"tasks.actions", "tasks.move"})
"""The calls that take an agent task out of a stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRecord:
    """One write on one thing, accepted or refused."""

    number: int
    """Counts from 1, without gaps."""
    at: datetime
    call: str
    """The stable name of the call, such as `labels.save`."""
    accepted: bool
    who: str
    """The e-mail address of the caller."""
    project_hash: str | None = None
    task_uuid: str | None = None
    data_hash: str | None = None
    label_hash: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What changed, or `reason` of a refusal."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values, with the instant in ISO 8601."""
        return {**asdict(self), "at": self.at.isoformat(), "detail": dict(self.detail)}


class Audit:
    """All records since the sandbox started, oldest first. Records are added and never changed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: list[AuditRecord] = []

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[AuditRecord]:
        return iter(tuple(self._records))

    def add(self, call: str, *, accepted: bool, who: str, **facts: Any) -> AuditRecord:
        """Append a record; `facts` are the optional fields of `AuditRecord`."""
        record = AuditRecord(
            number=len(self._records) + 1, at=self._clock(), call=call, accepted=accepted, who=who, **facts
        )
        self._records.append(record)
        return record

    def after(self, number: int, limit: int | None = None) -> list[AuditRecord]:
        """The records numbered above `number`, at most `limit` of them."""
        start = max(number, 0)
        return self._records[start : None if limit is None else start + limit]

    def records(self, call: str | None = None, *, accepted: bool | None = None) -> list[AuditRecord]:
        """The records of one call (or all), accepted, refused or both."""
        return [
            record
            for record in self._records
            if (call is None or record.call == call) and (accepted is None or record.accepted is accepted)
        ]

    def moves(self, project_hash: str | None = None) -> Counter[str]:
        """How often each agent task left a stage through the API, by task UUID."""
        return Counter(_moved(self._records, project_hash))

    def moves_from(self, stage: str, project_hash: str | None = None) -> Counter[str]:
        """How often each agent task left the stage of this title through the API, by task UUID."""
        here = [record for record in self._records if record.detail.get("from") == stage]
        return Counter(_moved(here, project_hash))

    def late_saves(self, project_hash: str | None = None) -> list[AuditRecord]:
        """Label saves accepted after the agent task had left the stage at which the row was read."""
        return [
            record
            for record in self._records
            if record.call == "labels.save"
            and record.accepted
            and record.detail.get("late")
            and project_hash in (None, record.project_hash)
        ]


def _moved(records: Iterable[AuditRecord], project_hash: str | None) -> Iterator[str]:
    for record in records:
        left = record.call in MOVES and record.accepted and "to" in record.detail
        if left and record.task_uuid is not None and project_hash in (None, record.project_hash):
            yield record.task_uuid
