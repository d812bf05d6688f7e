"""Each check of the demo is able to fail: one doctored fact at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from celery_agents import Outcome, TaskError, TaskOutcome
from examples.demo.checks import StageRun, differences

PICTURE, SOUND = str(UUID(int=1)), str(UUID(int=2))
BOX = {"x": 0.25, "y": 0.25, "w": 0.25, "h": 0.25}

#: The sandbox's report after a demo with one picture and one sound, as far as it is looked at.
REPORT: dict[str, Any] = {
    "projects": [
        {
            "stages": [
                {"title": "Pre-label", "left": {PICTURE: 1, SOUND: 1}},
                {"title": "Route", "left": {PICTURE: 1}},
                {"title": "Review", "left": {}},
                {"title": "Archive", "left": {}},
            ],
            "data_units": [
                {
                    "title": "a.png",
                    "kind": "image",
                    "task_uuid": PICTURE,
                    "stage": "Review",
                    "truth": [BOX],
                    "boxes": [BOX],
                },
                {
                    "title": "b.wav",
                    "kind": "audio",
                    "task_uuid": SOUND,
                    "stage": "Archive",
                    "truth": [],
                    "boxes": [],
                },
            ],
        }
    ],
    "audit": {"saves_after_move": []},
}


def proceeded(task_uuid: str) -> TaskOutcome:
    return TaskOutcome(outcome=Outcome.PROCEEDED, task_uuid=UUID(task_uuid), data_title="a.png")


RUNS = [
    StageRun("Pre-label", [proceeded(PICTURE), proceeded(SOUND)], 1.0, 4, 1),
    StageRun("Route", [proceeded(PICTURE)], 1.0, 4, 0),
]


def is_large(width: float, height: float) -> bool:
    return width * height > 0.05


def test_nothing_is_wrong_where_nothing_is() -> None:
    assert differences(REPORT, RUNS, is_large) == []


def stage(report: Any, number: int) -> Any:
    return report["projects"][0]["stages"][number]


def unit(report: Any, number: int) -> Any:
    return report["projects"][0]["data_units"][number]


DOCTORED: dict[str, tuple[Callable[[Any], object], str]] = {
    "moved twice": (lambda report: stage(report, 0)["left"].update({PICTURE: 2}), "left it 2 times, not 1"),
    "never moved": (lambda report: stage(report, 1)["left"].clear(), "left it 0 times, not 1"),
    "moved where nothing should": (
        lambda report: stage(report, 2)["left"].update({SOUND: 1}),
        "left it 1 times, not 0",
    ),
    "no label": (lambda report: unit(report, 0)["boxes"].clear(), "a.png (image) has 0 boxes, not 1"),
    "label saved twice over": (lambda report: unit(report, 0)["boxes"].append(BOX), "has 2 boxes, not 1"),
    "label on a sound": (
        lambda report: unit(report, 1)["boxes"].append(BOX),
        "b.wav (audio) has 1 boxes, not 0",
    ),
    "box moved": (lambda report: unit(report, 0).update(boxes=[{**BOX, "x": 0.27}]), "but it was drawn at"),
    "box too wide": (
        lambda report: unit(report, 0).update(boxes=[{**BOX, "w": 0.27}]),
        "but it was drawn at",
    ),
    "wrong pathway": (
        lambda report: unit(report, 0).update(stage="Complete"),
        "at stage Complete, not at Review",
    ),
    "late save": (lambda report: report["audit"]["saves_after_move"].append({}), "1 labels were saved after"),
}


@pytest.mark.parametrize(("doctor", "sentence"), DOCTORED.values(), ids=DOCTORED)
def test_what_the_sandbox_saw_is_compared(doctor: Callable[[Any], object], sentence: str) -> None:
    report = copy.deepcopy(REPORT)
    doctor(report)

    (found,) = differences(report, RUNS, is_large)

    assert sentence in found


def test_a_failed_outcome_is_told_with_its_reason() -> None:
    failed = TaskOutcome(
        outcome=Outcome.FAILED,
        task_uuid=UUID(PICTURE),
        data_title="a.png",
        error=TaskError(type="builtins.ValueError", detail="no red in it"),
    )

    (found,) = differences(REPORT, [RUNS[0], replace(RUNS[1], outcomes=[failed])], is_large)

    assert found == "Route: a.png is FAILED: no red in it"


@pytest.mark.parametrize(
    "outcomes", [[], [proceeded(PICTURE)] * 2, [proceeded(SOUND)]], ids=["none", "two", "another's"]
)
def test_each_agent_task_has_one_outcome(outcomes: list[TaskOutcome]) -> None:
    (found,) = differences(REPORT, [RUNS[0], replace(RUNS[1], outcomes=outcomes)], is_large)

    assert found.startswith(f"Route: {len(outcomes)} outcomes for")
