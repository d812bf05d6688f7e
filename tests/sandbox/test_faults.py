"""Scripted trouble, each kind, through the SDK; and when it strikes."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import requests
from encord import Project
from encord.exceptions import (
    GenericServerError,
    InvalidArgumentsError,
    RateLimitExceededError,
    RequestException,
    UnknownException,
)
from encord.workflow import AgentStage

from celery_agents.sandbox import Fault, Faults, SandboxServer
from celery_agents.sandbox import Project as ProjectState

from .conftest import KINDS, connect, proceed_all


def the_stage(sandbox: SandboxServer, *, max_retries: int = 0) -> AgentStage:
    project = connect(sandbox, max_retries=max_retries).get_project(sandbox.project_hash)
    return project.workflow.get_stage(name="Pre-label", type_=AgentStage)


def test_a_status_takes_no_effect(stage: AgentStage, state: ProjectState, sandbox: SandboxServer) -> None:
    task = next(iter(stage.get_tasks()))
    sandbox.faults.add(Fault(call="tasks.actions", status=503, times=1))

    with pytest.raises(UnknownException):
        task.proceed("labelled")
    assert state.stage_of(str(task.uuid)) == "Pre-label"

    task.proceed("labelled")
    assert state.stage_of(str(task.uuid)) == "Route"


def test_the_sdk_retries_and_retries_are_counted(sandbox: SandboxServer) -> None:
    stage = the_stage(sandbox, max_retries=3)
    sandbox.faults.add(Fault(call="tasks.list", status=502, html=True, times=2))

    assert len(list(stage.get_tasks())) == KINDS
    assert sandbox.calls["tasks.list"] == 5  # 3 pages, the first asked for three times
    assert sandbox.counters.retries == {"tasks.list": 2}


def test_retry_after_is_obeyed_by_the_sdk(sandbox: SandboxServer) -> None:
    stage = the_stage(sandbox, max_retries=1)
    sandbox.faults.add(Fault(call="tasks.list", status=429, retry_after="1", times=1))

    assert len(list(stage.get_tasks())) == KINDS
    assert sandbox.counters.retries == {"tasks.list": 1}


def test_rate_limits_with_and_without_retry_after(stage: AgentStage, sandbox: SandboxServer) -> None:
    sandbox.faults.add(
        Fault(call="tasks.list", status=429, retry_after="12", nth=(1,)),
        Fault(call="tasks.list", status=429, nth=(2,)),
        Fault(call="tasks.list", status=429, retry_after="Fri, 20 Nov 2026 12:12:32 GMT", nth=(3,)),
    )
    hints = []
    for _ in range(3):
        with pytest.raises(RateLimitExceededError) as caught:
            list(stage.get_tasks())
        hints.append(caught.value.retry_after)
    assert hints == [12, None, None]


def test_a_drop_before_the_effect(stage: AgentStage, state: ProjectState, sandbox: SandboxServer) -> None:
    task = next(iter(stage.get_tasks()))
    sandbox.faults.add(Fault(call="tasks.actions", drop="before", times=1))

    with pytest.raises(RequestException):
        task.proceed("labelled")

    assert state.stage_of(str(task.uuid)) == "Pre-label"
    assert sandbox.audit.records("tasks.actions") == []


def test_a_drop_after_the_effect(stage: AgentStage, state: ProjectState, sandbox: SandboxServer) -> None:
    task = next(iter(stage.get_tasks()))
    sandbox.faults.add(Fault(call="tasks.actions", drop="after", times=1))

    with pytest.raises(RequestException):
        task.proceed("labelled")

    assert state.stage_of(str(task.uuid)) == "Route"
    assert sandbox.audit.moves() == {str(task.uuid): 1}


def test_a_retry_after_a_lost_answer_finds_its_own_move(sandbox: SandboxServer, state: ProjectState) -> None:
    task = next(iter(the_stage(sandbox, max_retries=3).get_tasks()))
    sandbox.faults.add(Fault(call="tasks.actions", drop="after", times=1))

    with pytest.raises(InvalidArgumentsError, match="not all of the tasks are at stage"):
        task.proceed("labelled")

    assert sandbox.counters.retries == {"tasks.actions": 1}
    assert state.stage_of(str(task.uuid)) == "Route"
    assert state.task(str(task.uuid)).last_actioned_by == "owner@sandbox.local"
    assert sandbox.audit.moves() == {str(task.uuid): 1}


def test_a_dropped_save_took_place(project: Project, sandbox: SandboxServer, state: ProjectState) -> None:
    row = project.list_label_rows_v2()[0]
    row.initialise_labels()
    sandbox.faults.add(Fault(call="labels.save", drop="after", times=1))

    with pytest.raises(RequestException):
        row.save()

    saved = state.labels_of(row.data_hash)
    assert saved is not None
    assert saved.saves == 1


def test_dropped_and_failing_media(project: Project, sandbox: SandboxServer, state: ProjectState) -> None:
    row = project.list_label_rows_v2()[0]
    row.initialise_storage_item(get_signed_url=True)
    url = str(row.get_storage_item()._orm_item.signed_url)
    sandbox.faults.add(
        Fault(call="media.get", drop="before", nth=(1,)),
        Fault(call="media.get", status=503, html=True, nth=(2,)),
        Fault(call="media.get", slow=0.02, nth=(3,)),
    )

    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=10)
    assert requests.get(url, timeout=10).text.startswith("<html>")
    slow, whole = requests.get(url, timeout=10), requests.get(url, timeout=10)
    assert slow.content == whole.content
    assert slow.headers["Content-Length"] == whole.headers["Content-Length"]
    assert sandbox.calls["media.get"] == 4


def test_latency_holds_up_one_call_and_not_the_others(sandbox: SandboxServer, project: Project) -> None:
    sandbox.faults.add(Fault(call="tasks.list", latency=30))
    stage = project.workflow.get_stage(name="Pre-label")
    ended: list[Exception] = []

    def list_tasks() -> None:
        try:
            list(stage.get_tasks())
        except RequestException as error:
            ended.append(error)

    waiting = threading.Thread(target=list_tasks)
    waiting.start()
    while not sandbox.calls["tasks.list"]:
        time.sleep(0.005)

    project.refetch_data()  # is answered meanwhile
    assert waiting.is_alive()
    sandbox.stop()  # does not wait for the call
    waiting.join()
    assert len(ended) == 1


def test_latency_with_jitter() -> None:
    faults = Faults([Fault(latency=0.05), Fault(jitter=0.01)])
    delays = {faults.decide("x").delay for _ in range(20)}
    assert 0.05 < min(delays) < max(delays) < 0.06


def test_a_slow_body_arrives_whole(project: Project, sandbox: SandboxServer) -> None:
    sandbox.faults.add(Fault(call="label_rows.list", slow=0.05))
    assert len(project.list_label_rows_v2()) == KINDS


def test_tasks_moved_by_somebody_else_just_before(
    project: Project, stage: AgentStage, state: ProjectState, sandbox: SandboxServer
) -> None:
    tasks = list(stage.get_tasks())
    sandbox.faults.add(Fault(call="tasks.actions", moved=1, times=1))

    with pytest.raises(InvalidArgumentsError):
        proceed_all(project, [(task, "labelled") for task in tasks])

    assert state.counts() == {"Pre-label": KINDS - 1, "Route": 0, "Review": 0, "Complete": 1, "Archive": 0}
    (put,) = sandbox.audit.records("sandbox.put")
    assert (put.who, put.task_uuid) == ("somebody.else@sandbox.local", str(tasks[0].uuid))
    assert sandbox.audit.moves() == {}
    assert state.task(str(tasks[0].uuid)).last_actioned_by == "somebody.else@sandbox.local"


def test_a_listing_misses_what_somebody_else_moved(stage: AgentStage, sandbox: SandboxServer) -> None:
    sandbox.faults.add(Fault(call="tasks.list", moved=2, times=1))
    assert len(list(stage.get_tasks())) == KINDS - 2


def test_faults_name_calls_by_pattern(project: Project, sandbox: SandboxServer) -> None:
    sandbox.faults.add(Fault(call="label*", status=500))
    project.refetch_data()
    with pytest.raises(GenericServerError):
        project.list_label_rows_v2()
    sandbox.faults.clear()
    assert project.list_label_rows_v2()


# When a fault strikes, without a server


def hits(fault: Fault, *, calls: int = 200, seed: int = 0) -> list[int]:
    faults = Faults([fault], seed=seed)
    return [number for number in range(1, calls + 1) if faults.decide("tasks.list").answer]


def test_rate_is_a_chance_that_the_seed_repeats() -> None:
    fault = Fault(status=500, rate=0.2)
    assert 20 <= len(hits(fault)) <= 60
    assert hits(fault) == hits(fault)
    assert hits(fault) != hits(fault, seed=1)


def test_schedule() -> None:
    assert hits(Fault(status=500, nth=(2, 5))) == [2, 5]
    assert hits(Fault(status=500, times=2)) == [1, 2]
    assert hits(Fault(status=500, rate=0)) == []
    assert hits(Fault(call="labels.*", status=500)) == []


def test_one_fault_does_not_change_what_another_hits() -> None:
    alone, both = (
        Faults([Fault(status=500, rate=0.5)]),
        Faults([Fault(status=500, rate=0.5), Fault(latency=1)]),
    )
    assert [bool(alone.decide("x").answer) for _ in range(50)] == [
        bool(both.decide("x").answer) for _ in range(50)
    ]


def test_faults_combine() -> None:
    trouble = Faults(
        [Fault(latency=1), Fault(latency=2, drop="after"), Fault(status=500), Fault(moved=3)]
    ).decide("x")
    assert (trouble.delay, trouble.drop, trouble.moved) == (3, "after", 3)
    assert trouble.answer == Fault(status=500)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("tasks.actions:status=503,rate=0.05", Fault(call="tasks.actions", status=503, rate=0.05)),
        ("labels.save:drop=after,nth=2+5", Fault(call="labels.save", drop="after", nth=(2, 5))),
        ("status=429,retry_after=2,html=yes,times=3", Fault(status=429, retry_after="2", html=True, times=3)),
        ("*:latency=0.1,jitter=0.2,slow=1,moved=2", Fault(latency=0.1, jitter=0.2, slow=1, moved=2)),
        ("label*:error=RATE_LIMIT_ERROR", Fault(call="label*", error="RATE_LIMIT_ERROR")),
    ],
)
def test_faults_as_text_and_json(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault
    assert Fault.from_json(fault.to_json()) == fault


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tasks.list", "no option 'tasks.list'"),
        ("tasks.list:rate=0.5", "says when but not what"),
        ("status=200", "between 400 and 599"),
        ("status=nothing", "invalid literal"),
        ("drop=maybe", "'before' or 'after'"),
        ("status=500,rate=2", "between 0 and 1"),
        ("latency=1,html=yes", "need a status"),
        ("statsu=500", "its options are call, rate"),
    ],
)
def test_faults_that_make_no_sense(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Fault.parse(text)


def test_unreadable_json() -> None:
    values: dict[str, Any] = {"status": 500, "nth": 3}
    with pytest.raises(ValueError, match="not iterable"):
        Fault.from_json(values)
