"""Label rows: created once per data unit and branch, read with filters, replaced as a whole when saved."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .backlog import MAIN_BRANCH
from .errors import LabelLimitError, NotFoundError
from .identifiers import Identifiers
from .storage import DataUnit


@dataclass(slots=True)
class LabelRow:
    """The labels of one data unit on one branch."""

    label_hash: str
    data_hash: str
    branch: str
    created_at: datetime
    last_edited_at: datetime
    status: str = "LABEL_IN_PROGRESS"
    labels: dict[str, Any] = field(default_factory=dict)
    """What is labelled in each file or image of the data unit, by its hash."""
    space_labels: dict[str, Any] = field(default_factory=dict)
    """What is labelled in each space of a data group, by its id."""
    object_answers: dict[str, Any] = field(default_factory=dict)
    classification_answers: dict[str, Any] = field(default_factory=dict)
    object_actions: dict[str, Any] = field(default_factory=dict)
    saves: int = 0
    """How often the row was saved."""
    read_at_stage: str | None = None
    """UUID of the stage at which the agent task was when the row was last handed out."""

    def replace(self, content: Mapping[str, Any], *, by: str, at: datetime) -> None:
        """Store checked content over whatever was there."""
        self.labels = {key: unit.get("labels") or {} for key, unit in content["data_units"].items()}
        self.space_labels = {
            key: space.get("labels") or {} for key, space in (content.get("spaces") or {}).items()
        }
        self.object_answers = dict(content["object_answers"])
        self.classification_answers = dict(content["classification_answers"])
        self.object_actions = dict(content.get("object_actions") or {})
        for entry in self.authored():
            if entry.get("createdBy") is None:
                entry["createdBy"] = by
        self.last_edited_at = at
        self.saves += 1

    def objects(self) -> Iterator[dict[str, Any]]:
        """Every frame's objects, whether frames are keyed or the file has just one."""
        for labels in (*self.labels.values(), *self.space_labels.values()):
            frames = [labels] if "objects" in labels else labels.values()
            for frame in frames:
                yield from frame.get("objects") or ()

    def authored(self) -> Iterator[dict[str, Any]]:
        """Everything that carries an author: objects, and classifications."""
        yield from self.objects()
        yield from self.classification_answers.values()


@dataclass(frozen=True, kw_only=True)
class RowFilter:
    """The filters of a label row listing; None means no filter, an empty collection admits nothing."""

    data_hashes: Collection[str] | None = None
    label_hashes: Collection[str] | None = None
    statuses: Collection[str] | None = None
    title_eq: str | None = None
    title_like: str | None = None
    stage_eq: str | None = None
    stage_like: str | None = None
    edited_before: datetime | None = None
    edited_after: datetime | None = None
    branch: str | None = None
    all_branches: bool = False
    include_uninitialised: bool = True
    shadow_only: bool = False

    def admits(self, unit: DataUnit, row: LabelRow | None, stage: str | None) -> bool:
        """Whether the listing contains the row of this data unit; `row` is None before it is created."""
        return (
            not self.shadow_only
            and (row is not None or self.include_uninitialised)
            and _within(unit.data_hash, self.data_hashes)
            and _within(row.label_hash if row else None, self.label_hashes)
            and _within(row.status if row else "NOT_LABELLED", self.statuses)
            and _matches(unit.title, self.title_eq, self.title_like)
            and _matches(stage, self.stage_eq, self.stage_like)
            and (self.edited_before is None or (row is not None and row.last_edited_at < self.edited_before))
            and (self.edited_after is None or (row is not None and row.last_edited_at > self.edited_after))
        )


class LabelRows:
    """The label rows of one project."""

    def __init__(self, identifiers: Identifiers, limit: int) -> None:
        """`limit` is the most rows that one request may create, read or save."""
        self._identifiers = identifiers
        self._limit = limit
        self._by_hash: dict[str, LabelRow] = {}
        self._by_data: dict[str, dict[str, LabelRow]] = {}

    def check_limit(self, hashes: Sequence[str]) -> None:
        """Raises `LabelLimitError` when one request names too many rows."""
        if len(hashes) > self._limit:
            raise LabelLimitError(self._limit)

    def get(self, label_hash: str) -> LabelRow:
        """The row of this label hash. Raises `NotFoundError`."""
        row = self._by_hash.get(label_hash)
        if row is None:
            raise NotFoundError(f"no label row {label_hash}")
        return row

    def of(self, data_hash: str, branch: str = MAIN_BRANCH) -> LabelRow | None:
        """The row of a data unit, if it was created."""
        return self._by_data.get(data_hash, {}).get(branch)

    def create(self, data_hash: str, branch: str, at: datetime) -> LabelRow:
        """The row of a data unit, made if there is none."""
        row = self.of(data_hash, branch)
        if row is None:
            row = LabelRow(self._identifiers.uuid(), data_hash, branch, at, at)
            self._by_hash[row.label_hash] = row
            self._by_data.setdefault(data_hash, {})[branch] = row
        return row

    def remove(self, data_hash: str) -> None:
        """Forget the rows of a data unit that left the project."""
        for row in self._by_data.pop(data_hash, {}).values():
            del self._by_hash[row.label_hash]

    def branches(self, data_hash: str, chosen: RowFilter) -> Iterable[tuple[str, LabelRow | None]]:
        """The branches of a data unit that a listing shows, with their rows where they exist."""
        rows = self._by_data.get(data_hash, {})
        if not chosen.all_branches:
            branch = chosen.branch or MAIN_BRANCH
            return [(branch, rows.get(branch))]
        return [(MAIN_BRANCH, rows.get(MAIN_BRANCH)), *((b, r) for b, r in rows.items() if b != MAIN_BRANCH)]


def _within(value: str | None, allowed: Collection[str] | None) -> bool:
    return allowed is None or value in allowed


def _matches(value: str | None, equal: str | None, like: str | None) -> bool:
    if equal is not None and value != equal:
        return False
    return like is None or (value is not None and _like(like).fullmatch(value) is not None)


def _like(pattern: str) -> re.Pattern[str]:
    """SQL's LIKE, without regard to case: % is any text, _ any character."""
    translated = "".join({"%": ".*", "_": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.compile(translated, re.IGNORECASE | re.DOTALL)
