"""The tasks of a project, those that wait at one stage, and how they are listed."""

from __future__ import annotations

import base64
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from .errors import InvalidArgumentsError

MAIN_BRANCH = "main"
#: Tasks in one block of a backlog: to take one out of a block of so many costs less than to find it.
_BLOCK = 1000


@dataclass(slots=True)
class Task:
    """The unit of work that moves through the stages: one data unit on one label branch."""

    uuid: str
    data_hash: str
    data_title: str
    dataset_hash: str
    created_at: datetime
    updated_at: datetime
    stage_uuid: str = ""
    place: int = 0
    """Position among all arrivals; grows, so a page token stays good while tasks come and go."""
    branch: str = MAIN_BRANCH
    status: str = "NEW"
    assignee: str | None = None
    last_actioned_by: str | None = None
    priority: float = 0.5


@dataclass(frozen=True, kw_only=True)
class TaskFilter:
    """The filters of a task listing. An empty collection means no filter."""

    data_hashes: Collection[str] = ()
    dataset_hashes: Collection[str] = ()
    title_contains: str | None = None
    statuses: Collection[str] = ()
    assignees: Collection[str] = ()

    def admits(self, task: Task) -> bool:
        """Whether the listing contains this task."""
        return (
            (not self.data_hashes or task.data_hash in self.data_hashes)
            and (not self.dataset_hashes or task.dataset_hash in self.dataset_hashes)
            and (not self.title_contains or self.title_contains.lower() in task.data_title.lower())
            and (not self.statuses or task.status in self.statuses)
            and (not self.assignees or task.assignee in self.assignees)
        )


class Backlog:
    """The tasks at one stage in order of arrival.

    Kept in blocks, so that a task leaves, and a page begins, at the same cost wherever it is and however many wait. (A
    dict keeps a gap for each that has left, and whoever reads it from the front walks over all of them.)
    """

    def __init__(self) -> None:
        self._blocks: list[list[Task]] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, task: Task) -> None:
        """Let a task wait behind all others: its place is greater than theirs."""
        if not self._blocks or len(self._blocks[-1]) >= _BLOCK:
            self._blocks.append([])
        self._blocks[-1].append(task)
        self._length += 1

    def remove(self, task: Task) -> None:
        """Take a task out, which must be here."""
        number = bisect_left(self._blocks, task.place, key=_last_place)
        block = self._blocks[number]
        del block[bisect_left(block, task.place, key=_place)]
        if not block:
            del self._blocks[number]
        self._length -= 1

    def after(self, place: int) -> Iterator[Task]:
        """Yield the tasks behind a place. Nothing may arrive or leave meanwhile."""
        first = bisect_right(self._blocks, place, key=_last_place)
        for number in range(first, len(self._blocks)):
            block = self._blocks[number]
            yield from block[bisect_right(block, place, key=_place) if number == first else 0 :]


def _place(task: Task) -> int:
    return task.place


def _last_place(block: list[Task]) -> int:
    return block[-1].place


def token_for(place: int) -> str:
    """The page token of what comes after a place."""
    return base64.urlsafe_b64encode(f"after:{place}".encode()).decode()


def place_in(token: str | None) -> int:
    """The place after which a page begins. Raises `InvalidArgumentsError` for a token that this did not give out."""
    if token is None:
        return 0
    try:
        prefix, _, place = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        if prefix == "after":
            return int(place)
    except ValueError:
        pass
    raise InvalidArgumentsError("the page token is not one that this server gave out")
