"""What waits at a stage: in order, and at the same cost however much it is."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from celery_agents.sandbox import Kind, Project, Sandbox, StageSpec, StageType, Task
from celery_agents.sandbox.backlog import Backlog, TaskFilter
from celery_agents.sandbox.workflow import Stage

AT = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = 10
#: Several blocks of a backlog.
MANY = 3_500


class Counting(TaskFilter):
    """A filter that counts how many tasks it was asked about."""

    looked_at = 0

    def admits(self, task: Task) -> bool:
        Counting.looked_at += 1
        return super().admits(task)


@pytest.fixture
def project() -> Project:
    state = Sandbox(page_size=PAGE)
    stages = [StageSpec(title="Look", pathways={"on": "End"}), StageSpec(title="End", type=StageType.DONE)]
    dataset = state.add_dataset("Many")
    state.add_data_units(dataset, [Kind.PLAIN_TEXT] * MANY)
    return state.add_project("Many", stages=stages, datasets=[dataset])


@pytest.fixture
def stage(project: Project) -> Stage:
    return project.workflow.stage_titled("Look")


def looked_at(project: Project, stage: Stage, token: str | None, **chosen: object) -> tuple[list[Task], int]:
    Counting.looked_at = 0
    tasks, _ = project.page(stage.uuid, Counting(**chosen), token)  # type: ignore[arg-type]
    return tasks, Counting.looked_at


def test_tasks_come_and_go_in_order() -> None:
    dice, backlog, expected = random.Random(1), Backlog(), []
    for place in range(1, MANY):
        task = Task(f"task-{place}", "", "", "", AT, AT, place=place)
        backlog.append(task)
        expected.append(task)
        if dice.random() < 0.6:  # from the front, the end and between
            gone = expected.pop(dice.choice((0, -1, dice.randrange(len(expected)))))
            backlog.remove(gone)
        if place % 250 == 0:
            after = dice.randrange(place)
            assert list(backlog.after(after)) == [task for task in expected if task.place > after]
    assert list(backlog.after(0)) == expected
    assert len(backlog) == len(expected) > 1000
    for task in expected:
        backlog.remove(task)
    assert list(backlog.after(0)) == []


def test_a_page_costs_the_same_wherever_it_begins(project: Project, stage: Stage) -> None:
    pages, token = [], None
    for _ in range(MANY // PAGE):
        tasks, token = project.page(stage.uuid, TaskFilter(), token)
        pages.append((tasks, token))

    assert [task for tasks, _ in pages for task in tasks] == project.tasks_at("Look")
    assert token is None
    tasks, number = looked_at(project, stage, pages[-3][1])
    assert (tasks, number) == (pages[-2][0], PAGE + 1)


def test_named_tasks_cost_the_same_however_many_wait(project: Project, stage: Stage) -> None:
    tasks = project.tasks_at("Look")
    first, middle, moved, last = tasks[0], tasks[MANY // 2], tasks[1], tasks[-1]
    project.put(moved.uuid, "End")
    asked = [last.data_hash, moved.data_hash, "nothing", first.data_hash, middle.data_hash]

    assert looked_at(project, stage, None, data_hashes=asked) == ([first, middle, last], 3)


def test_named_tasks_come_in_pages_too(project: Project, stage: Stage) -> None:
    asked = TaskFilter(data_hashes=[task.data_hash for task in project.tasks_at("Look")[: PAGE + 3]])
    tasks, token = project.page(stage.uuid, asked, None)
    rest, end = project.page(stage.uuid, asked, token)
    assert tasks + rest == project.tasks_at("Look")[: PAGE + 3]
    assert (len(tasks), end) == (PAGE, None)


def test_somebody_else_moves_those_named_once(project: Project, stage: Stage) -> None:
    first, second, third = (task.uuid for task in project.tasks_at("Look")[:3])
    project.interfere(stage.uuid, [third, second, second], 2)
    assert [project.stage_of(uuid) for uuid in (first, second, third)] == ["Look", "End", "End"]
    project.interfere(stage.uuid, None, 1)
    assert project.stage_of(first) == "End"
    project.interfere("no stage of it", None, 1)
    assert project.counts() == {"Look": MANY - 3, "End": 3}
