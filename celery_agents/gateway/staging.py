"""A bundle that holds one agent task's writes back until the batch is committed.

The SDK's ``Bundle`` collects writes and sends them together, all or nothing. Here each agent task gets a bundle of its
own that only records; at commit the recordings of those that succeeded are replayed into one real bundle. So an agent
that fails takes back its own writes only, and a refused bundle can be tried again in halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast
from uuid import UUID

from encord.http.bundle import Bundle
from encord.objects.bundled_operations import (
    BundledSaveRowsPayload,
    BundledWorkflowCompletePayload,
    BundledWorkflowReopenPayload,
)
from encord.workflow.common import BundledMoveTasksPayload, BundledWorkflowActionPayload
from encord.workflow.stages.agent import _ActionPathway

#: What takes an agent task to another stage.
_MOVES = (
    BundledWorkflowActionPayload,
    BundledMoveTasksPayload,
    BundledWorkflowCompletePayload,
    BundledWorkflowReopenPayload,
)


@dataclass(frozen=True, slots=True, eq=False)
class _Write:
    operation: Callable[..., Any]
    result_mapper: Any
    payload: Any
    limit: int

    @property
    def moves_a_task(self) -> bool:
        return isinstance(self.payload, _MOVES)

    @property
    def turn(self) -> tuple[bool, bool]:
        """What is sent together, in this order: a row that is to be validated has no other validated as well."""
        return self.moves_a_task, bool(getattr(self.payload, "validate_before_saving", False))

    @property
    def what(self) -> object:
        """What a later write of the same puts aside: a save has all labels of its row. Other writes stand alone."""
        return tuple(self.payload.uids) if isinstance(self.payload, BundledSaveRowsPayload) else self

    def replay(self, bundle: Bundle) -> None:
        own = {field.name: _own(getattr(self.payload, field.name)) for field in fields(self.payload)}
        bundle.add(self.operation, self.result_mapper, replace(self.payload, **own), self.limit)


def _own(value: Any) -> Any:
    # The SDK joins payloads by extending the first one's lists and dicts, so each replay needs its own.
    if isinstance(value, list):
        return [_Uncopied(each) for each in value]
    if isinstance(value, dict):
        return {key: _Uncopied(each) for key, each in value.items()}
    return value


class _Uncopied:
    """Stands for one element of a payload until it is sent.

    ``Bundle.execute`` copies what it sends deeply (``dataclasses.asdict``). Of labels that costs as much as all else
    about saving them, and nobody changes them any more.
    """

    __slots__ = ("_element",)

    def __init__(self, element: Any) -> None:
        self._element = element

    def __deepcopy__(self, memo: object) -> Any:
        return self._element


class StagedBundle(Bundle):
    """The ``Bundle`` that is injected into agents: what is put in is sent when the batch is committed.

    ``execute()``, or leaving a ``with`` block, sends at once what this agent task has put in so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self._writes: dict[object, _Write] = {}  #: by ``_Write.what``

    def add(self, operation: Any, result_mapper: Any, payload: Any, limit: int) -> None:
        """Hold one write back; called by the SDK's methods that take ``bundle=``."""
        write = _Write(operation, result_mapper, payload, limit)
        self._writes[write.what] = write

    def execute(self) -> None:
        """Send now what was held back: the agent asked for it."""
        send([self])
        self.clear()

    def clear(self) -> None:
        """Forget what is held back."""
        self._writes.clear()

    def writes(self) -> Sequence[_Write]:
        """Return what is held back, in the order in which it was put in."""
        return tuple(self._writes.values())

    @property
    def has_moves(self) -> bool:
        """Whether the agent put in a move of an agent task."""
        return bool(self._writes) and any(write.moves_a_task for write in self.writes())

    def take_pathway(self) -> UUID | str | None:
        """Take out the pathway that the agent chose by ``task.proceed(..., bundle=bundle)``, if it did."""
        chosen = None
        for write in self.writes():
            if isinstance(write.payload, BundledWorkflowActionPayload):
                action = cast("_ActionPathway", write.payload.actions[0])
                chosen = action.pathway_uuid or action.pathway_name
                del self._writes[write.what]
        return chosen


def send(staged: Iterable[StagedBundle]) -> None:
    """Send the writes of several agent tasks in as few requests as possible: everything else first, then moves."""
    writes = [write for each in staged for write in each.writes()]
    for turn in sorted({write.turn for write in writes}):
        with Bundle() as bundle:
            for write in writes:
                if write.turn == turn:
                    write.replay(bundle)
