"""How outcomes that are alike are kept: what is true of all is written once, see ``scripts/records.lua``.

Where nothing goes wrong the outcomes of a message differ in agent task and data unit only, or there are a few such
groups, one for each pathway. A record for each would cost more than all else that the ledger does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from celery_agents.ledger.records import TOLD_OUTSIDE, Settlement, size_of
from celery_agents.ledger.scripts import packed
from celery_agents.messages import Outcome, TaskOutcome, tries

#: Most agent tasks of one group. Who asks for one of them makes Redis read them all.
MOST_ALIKE = 1_000
#: Longest title of a data unit, or name of a pathway, of what is kept in a group, in characters.
NAME_LIMIT = 200

#: What may be kept in groups. GONE may not: where it was known how it went, it is not recorded.
_KINDS = frozenset({Outcome.PROCEEDED, Outcome.HELD})
_in_common = itemgetter(
    "outcome", "pathway", "pathway_name", "detail", "error", "earlier_errors", "spec", "progress"
)
_NOTHING_ELSE = [None, None, (), None, None]
#: Stands between titles while they are written as one text.
_BETWEEN = "|"


def sort_out(
    settlements: Iterable[TaskOutcome | Settlement], most: int = MOST_ALIKE
) -> tuple[list[Settlement], list[list[TaskOutcome]]]:
    """Return what is kept alone, and the outcomes that are alike, in lists of 2 to *most*.

    What has no ``task_uuid`` is left out. The longest list is the last: what a message settles last costs least.
    """
    alone: list[Settlement] = []
    outcomes: list[TaskOutcome] = []
    for each in settlements:
        (alone if isinstance(each, Settlement) else outcomes).append(each)  # type: ignore[arg-type]
    groups: list[list[TaskOutcome]] = []
    for group in _alike(outcomes):
        for piece in (group[at : at + most] for at in range(0, len(group), most)):
            if len(piece) > 1 and _may_be_grouped(piece):
                groups.append(piece)
            else:
                alone += [Settlement(each, 1 + tries(each.earlier_errors)) for each in piece]
    return [each for each in alone if each.outcome.task_uuid], sorted(groups, key=len)


def _alike(outcomes: Iterable[TaskOutcome]) -> Iterable[list[TaskOutcome]]:
    groups: dict[Any, list[TaskOutcome]] = {}
    latest, group = None, list[TaskOutcome]()
    for outcome in outcomes:
        said = _in_common(vars(outcome))
        if said != latest:  # to compare what is mostly the same costs less than to look it up
            latest, group = said, groups.setdefault(said, [])
        group.append(outcome)
    return groups.values()


def _may_be_grouped(outcomes: Sequence[TaskOutcome]) -> bool:
    kind, _, pathway_name, *others = _in_common(vars(outcomes[0]))
    titles = [each.data_title for each in outcomes]
    return (
        kind in _KINDS
        and others == _NOTHING_ELSE
        and all(each.task_uuid and each.data_hash for each in outcomes)
        and None not in titles
        and max(map(len, [pathway_name or "", *titles])) <= NAME_LIMIT  # type: ignore[arg-type]  # none is None
    )


def encode(groups: Iterable[Sequence[TaskOutcome]], where: str) -> str:
    """Return *groups* as ``settle.lua`` takes them, in one text; *where* is JSON."""
    return "".join([part for group in groups for part in _encode(group, where)])


def _encode(group: Sequence[TaskOutcome], where: str) -> tuple[str, ...]:
    first = group[0]
    said = first.model_dump_json(exclude_defaults=True, exclude={*TOLD_OUTSIDE, "data_title"})[1:]
    rest = f'{"," if len(said) > 1 else ""}{said},"attempts":1,"where":{where}}}'
    tasks = packed([each.task_uuid for each in group if each.task_uuid])
    data = packed([each.data_hash for each in group if each.data_hash])
    lines = f"{rest}\n{_lines([each.data_title or '' for each in group])}\n"
    length = len(tasks) + len(data) + size_of(lines)
    return f"{first.outcome.value} {len(group)} {length}\n", tasks, data, lines


def _lines(titles: Sequence[str]) -> str:
    """Return a line for each title: as JSON, without its quotation marks."""
    text = _BETWEEN.join(titles)
    if text.count(_BETWEEN) < len(titles):  # a hundred calls cost more than all else that is written
        return json.dumps(text)[1:-1].replace(_BETWEEN, "\n")
    return "\n".join([json.dumps(title)[1:-1] for title in titles])
