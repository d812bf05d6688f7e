"""What must be true afterwards: the workers' outcomes against the sandbox's own books."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from celery_agents import Outcome, TaskOutcome

#: How far an edge may lie from where it was drawn, in parts of the picture: three of the sandbox's 240 pixel rows.
#: JPEG and video compression blur edges by up to two pixels.
TOLERANCE = 3 / 240

#: The sandbox's report as JSON, see ``celery_agents.sandbox.admin.report``.
Report = Mapping[str, Any]
#: Whether a box of this width and height is large, as the app's second agent sees it.
IsLarge = Callable[[float, float], bool]


@dataclass(frozen=True)
class StageRun:
    """What one stage's sweep brought."""

    stage: str
    outcomes: Sequence[TaskOutcome]
    seconds: float
    """From the first message on the broker to the last result."""
    encord_calls: int
    """To Encord's API, by the producer and the workers."""
    downloads: int
    """Of media."""


def differences(report: Report, runs: Sequence[StageRun], is_large: IsLarge) -> list[str]:
    """Return a sentence for each thing that is not as it must be; none if all is well."""
    (project,) = report["projects"]
    units = project["data_units"]
    seen = {"Pre-label": units, "Route": [unit for unit in units if unit["truth"]]}
    found = chain(
        *(_outcome_differences(run, seen[run.stage]) for run in runs),
        *(_move_differences(stage, seen.get(stage["title"], ())) for stage in project["stages"]),
        *(_unit_differences(unit, is_large) for unit in units),
        _save_differences(report["audit"]),
    )
    return list(found)


def _outcome_differences(run: StageRun, expected: Sequence[Any]) -> Iterator[str]:
    """One outcome for each agent task, and that it proceeded."""
    answered = [str(outcome.task_uuid) for outcome in run.outcomes]
    wanted = [unit["task_uuid"] for unit in expected]
    if sorted(answered) != sorted(wanted):
        yield f"{run.stage}: {len(answered)} outcomes for {len(set(answered))} agent tasks, {len(wanted)} were expected"
    for outcome in run.outcomes:
        if outcome.outcome is not Outcome.PROCEEDED:
            reason = outcome.error.detail if outcome.error else outcome.detail or "no reason given"
            yield f"{run.stage}: {outcome.data_title} is {outcome.outcome}: {reason}"


def _move_differences(stage: Mapping[str, Any], expected: Sequence[Any]) -> Iterator[str]:
    """By the sandbox's audit each agent task left the stage once; nothing else left any stage."""
    once = {unit["task_uuid"]: 1 for unit in expected}
    left: Mapping[str, int] = stage["left"]
    for task_uuid in once.keys() | left.keys():
        times = left.get(task_uuid, 0)
        if times != once.get(task_uuid, 0):
            yield f"{stage['title']}: agent task {task_uuid} left it {times} times, not {once.get(task_uuid, 0)}"


def _unit_differences(unit: Mapping[str, Any], is_large: IsLarge) -> Iterator[str]:
    """The label is there, where the box was drawn, and the size of the box decided where the data unit went."""
    boxes, truth = unit["boxes"], unit["truth"][:1]  # the agent labels the first frame
    if len(boxes) != len(truth):
        yield f"{unit['title']} ({unit['kind']}) has {len(boxes)} boxes, not {len(truth)}"
        return
    if any(not _is_close(box, drawn) for box, drawn in zip(boxes, truth, strict=True)):
        yield f"{unit['title']} ({unit['kind']}) has its box at {boxes[0]}, but it was drawn at {truth[0]}"
    expected = _destination(boxes, is_large)
    if unit["stage"] != expected:
        yield f"{unit['title']} ({unit['kind']}) is at stage {unit['stage']}, not at {expected}"


def _save_differences(audit: Mapping[str, Any]) -> Iterator[str]:
    """No label was saved after its agent task had moved on."""
    if audit["saves_after_move"]:
        yield f"{len(audit['saves_after_move'])} labels were saved after their agent task had left the stage"


def _destination(boxes: Sequence[Mapping[str, float]], is_large: IsLarge) -> str:
    if not boxes:
        return "Archive"
    return "Review" if is_large(boxes[0]["w"], boxes[0]["h"]) else "Complete"


def _is_close(box: Mapping[str, float], drawn: Mapping[str, float]) -> bool:
    return all(abs(one - other) <= TOLERANCE for one, other in zip(_edges(box), _edges(drawn), strict=True))


def _edges(box: Mapping[str, float]) -> Iterable[float]:
    return box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"]
