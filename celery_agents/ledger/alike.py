"""How outcomes that are alike are kept: what is true of all is written once, see ``scripts/records.lua``.

Where nothing goes wrong the outcomes of a message differ in agent task and data unit only, or there are a few such
groups, one for each pathway. A record for each would cost more than all else that the ledger does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from celery_agents.ledger.records import TOLD_OUTSIDE, Settlement
from celery_agents.ledger.scripts import Packed, packed
from celery_agents.messages import Outcome, TaskOutcome, tries

#: Most agent tasks of one group. Who asks for one of them makes Redis read them all.
MOST_ALIKE = 1_000
#: Longest title of a data unit, or name of a pathway, of what is kept in a group, in characters.
NAME_LIMIT = 200

#: What may be kept in groups. GONE may not: where it was known how it went, it is not recorded.
_KINDS = frozenset({Outcome.PROCEEDED, Outcome.HELD})
_COMMON = ("outcome", "pathway", "pathway_name", "detail", "error", "earlier_errors", "spec", "progress")
_in_common = itemgetter(*_COMMON)
_told = itemgetter(*_COMMON, "task_uuid", "data_hash", "data_title")
_fields = attrgetter("__dict__")  # as vars, and faster
_NOTHING_ELSE = [None, None, (), None, None]
#: Stands between titles while they are written as one text.
_BETWEEN = "|"


class Group(NamedTuple):
    """Outcomes that are alike, and in columns what differs."""

    first: TaskOutcome
    task_uuids: tuple[UUID, ...]
    data_hashes: tuple[UUID, ...]
    titles: tuple[str, ...]


def sort_out(
    settlements: Sequence[TaskOutcome | Settlement], most: int = MOST_ALIKE
) -> tuple[list[Settlement], list[Group]]:
    """Return what is kept alone, and what is alike, in groups of 2 to *most*.

    What has no ``task_uuid`` is left out. The largest group is the last: what a message settles last costs least.
    """
    alone, outcomes = _apart(settlements)
    if whole := _grouped(outcomes, most):
        return [each for each in alone if each.outcome.task_uuid], [whole]
    groups: list[Group] = []
    for piece in _pieces(outcomes, most):
        if group := _grouped(piece, most):
            groups.append(group)
        else:
            alone += [Settlement(each, 1 + tries(each.earlier_errors)) for each in piece]
    return [each for each in alone if each.outcome.task_uuid], sorted(
        groups, key=lambda each: len(each.titles)
    )


def _apart(
    settlements: Sequence[TaskOutcome | Settlement],
) -> tuple[list[Settlement], Sequence[TaskOutcome]]:
    if Settlement not in {*map(type, settlements)}:
        return [], settlements  # type: ignore[return-value]  # as none is a settlement
    alone = [each for each in settlements if isinstance(each, Settlement)]
    return alone, [each for each in settlements if isinstance(each, TaskOutcome)]


def _pieces(outcomes: Sequence[TaskOutcome], most: int) -> Iterator[Sequence[TaskOutcome]]:
    """Yield lists of up to *most* with the same in common."""
    alike: dict[Any, list[TaskOutcome]] = {}
    for outcome in outcomes:
        alike.setdefault(_in_common(_fields(outcome)), []).append(outcome)
    for each in alike.values():
        yield from (each[at : at + most] for at in range(0, len(each), most))


def _grouped(outcomes: Sequence[TaskOutcome], most: int) -> Group | None:
    """Return *outcomes* as a group, if they are alike and may be kept in one."""
    if not 1 < len(outcomes) <= most:
        return None
    # Columns are looked through by C: a line of Python for each outcome would cost more than all else.
    *in_common, tasks, data, titles = zip(*map(_told, map(_fields, outcomes)), strict=True)
    if any(column.count(column[0]) < len(outcomes) for column in in_common):
        return None
    kind, _, pathway_name, *others = [column[0] for column in in_common]
    if kind not in _KINDS or others != _NOTHING_ELSE or len(pathway_name or "") > NAME_LIMIT:
        return None
    if not (all(tasks) and all(data)) or None in titles or max(map(len, titles)) > NAME_LIMIT:
        return None
    return Group(outcomes[0], tasks, data, titles)


def encode(
    groups: Iterable[Group], where: str, known: tuple[tuple[UUID, ...], Packed] = ((), Packed(""))
) -> tuple[str, ...]:
    """Return *groups* as ``settle.lua`` takes them, three texts for each.

    Args:
        groups: The groups.
        where: The worker, as JSON.
        known: Agent tasks that are packed already.
    """
    return tuple([part for group in groups for part in _encode(group, where, known)])


def _encode(group: Group, where: str, known: tuple[tuple[UUID, ...], Packed]) -> tuple[str, str, str]:
    tasks = known[1] if group.task_uuids == known[0] else packed(group.task_uuids)
    said = group.first.model_dump_json(exclude_defaults=True, exclude={*TOLD_OUTSIDE, "data_title"})[1:]
    rest = f'{"," if len(said) > 1 else ""}{said},"attempts":1,"where":{where}}}'
    following = f"{packed(group.data_hashes)}{rest}\n{_lines(group.titles)}\n"
    return group.first.outcome.value, tasks, following


def _lines(titles: Sequence[str]) -> str:
    """Return a line for each title: as JSON, without its quotation marks."""
    text = _BETWEEN.join(titles)
    if text.count(_BETWEEN) < len(titles):  # a hundred calls cost more than all else that is written
        return json.dumps(text)[1:-1].replace(_BETWEEN, "\n")
    return "\n".join([json.dumps(title)[1:-1] for title in titles])
