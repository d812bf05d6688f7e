"""Encord calls grow with batches, not with agent tasks."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from encord.http.bundle import Bundle
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.orm.storage import StorageItemType
from encord.storage import StorageItem
from encord.workflow.stages.agent import AgentTask
from numpy.typing import NDArray

from celery_agents import Depends, Outcome, TaskAgentReturnStruct
from celery_agents.dependencies import dep_single_frame
from celery_agents.messages import TaskSpec
from celery_agents.sandbox import SandboxServer

from .agents import FORWARD, proceed, save
from .conftest import Bench, open_bench


def test_needs_nothing(bench: Bench) -> None:
    assert bench.calls_of(lambda: bench.execute(proceed)) == {"tasks.list": 1, "tasks.actions": 1}


def test_saves_label_rows(bench: Bench) -> None:
    assert bench.calls_of(lambda: bench.execute(save)) == {
        "label_rows.list": 1,
        "labels.create": 1,
        "labels.save": 1,
        "tasks.actions": 1,
    }


def test_saves_label_rows_of_which_some_exist(bench: Bench) -> None:
    some = [TaskSpec.decode(spec) for spec in bench.specs[:4]]
    bench.gateway.initialise(list(bench.gateway.label_rows(some, {}).values()), {})
    calls = bench.calls_of(lambda: bench.execute(save))
    assert calls == {
        "label_rows.list": 1,
        "labels.create": 1,
        "labels.get": 1,
        "labels.save": 1,
        "tasks.actions": 1,
    }


def test_takes_storage_items(bench: Bench) -> None:
    names = []

    def agent(item: StorageItem) -> str:
        names.append(item.name)
        return FORWARD

    calls = bench.calls_of(lambda: bench.execute(agent))
    assert calls == {"label_rows.list": 1, "storage.bulk": 1, "tasks.actions": 1}
    assert names == [TaskSpec.decode(spec).data_title for spec in bench.specs]


def test_takes_a_frame_which_costs_its_own_media_only(bench: Bench) -> None:
    def frame_if_any(item: StorageItem) -> NDArray[np.uint8] | None:
        framed = (StorageItemType.IMAGE, StorageItemType.VIDEO, StorageItemType.IMAGE_SEQUENCE)
        return dep_single_frame(item) if item.item_type in framed else None

    shapes = []

    def agent(frame: Annotated[NDArray[np.uint8] | None, Depends(frame_if_any)]) -> str:
        if frame is not None:
            shapes.append(frame.shape)
        return FORWARD

    calls = bench.calls_of(lambda: bench.execute(agent))
    assert calls.pop("media.get") == len(shapes) > 5
    assert calls == {"label_rows.list": 1, "storage.bulk": 1, "tasks.actions": 1}
    assert {shape[2] for shape in shapes} == {3}


def test_priorities_without_a_label_row_parameter(bench: Bench) -> None:
    def agent(task: AgentTask) -> TaskAgentReturnStruct:
        return TaskAgentReturnStruct(pathway=FORWARD, label_row_priority=0.0)

    calls = bench.calls_of(lambda: bench.execute(agent, will_set_priority=True))
    assert calls == {"label_rows.list": 1, "priorities.set": 1, "tasks.actions": 1}
    assert {task.priority for task in bench.project.workflow.tasks.values()} == {0.0}


def test_priorities_that_were_not_announced(bench: Bench) -> None:
    def agent(task: AgentTask) -> TaskAgentReturnStruct:
        return TaskAgentReturnStruct(pathway=FORWARD, label_row_priority=0.25)

    calls = bench.calls_of(lambda: bench.execute(agent))
    assert calls == {"tasks.list": 1, "label_rows.list": 1, "priorities.set": 1, "tasks.actions": 1}
    assert {task.priority for task in bench.project.workflow.tasks.values()} == {0.25}


def test_a_bundle_gathers_the_writes_of_the_batch(bench: Bench) -> None:
    def agent(label_row: LabelRowV2, item: StorageItem, bundle: Bundle) -> str:
        label_row.save(bundle=bundle)
        label_row.set_priority(1.0, bundle=bundle)
        item.update(client_metadata={"seen": True}, bundle=bundle)
        return FORWARD

    calls = bench.calls_of(lambda: bench.execute(agent))
    assert calls == {
        "label_rows.list": 1,
        "labels.create": 1,
        "storage.bulk": 1,
        "labels.save": 1,
        "priorities.set": 1,
        "storage.patch_bulk": 1,
        "tasks.actions": 1,
    }


def test_what_a_failing_agent_put_into_its_bundle_is_not_sent(bench: Bench) -> None:
    guilty = TaskSpec.decode(bench.specs[3]).uuid

    def agent(task: AgentTask, label_row: LabelRowV2, bundle: Bundle) -> str:
        label_row.set_priority(1.0, bundle=bundle)
        if task.uuid == guilty:
            raise ValueError
        return FORWARD

    bench.execute(agent)
    unchanged = [task for task in bench.project.workflow.tasks.values() if task.priority != 1.0]
    assert [task.uuid for task in unchanged] == [str(guilty)]


def test_a_bundle_can_be_executed_by_the_agent(bench: Bench) -> None:
    def agent(label_row: LabelRowV2, bundle: Bundle) -> str:
        with bundle:
            label_row.set_priority(1.0, bundle=bundle)
        return FORWARD

    calls = bench.calls_of(lambda: bench.execute(agent, bench.specs[:2]))
    assert calls["priorities.set"] == 2


def test_proceed_through_the_bundle_is_an_answer(bench: Bench) -> None:
    def agent(task: AgentTask, bundle: Bundle) -> None:
        task.proceed(pathway_name=FORWARD, bundle=bundle)

    execution = bench.execute(agent)
    assert {(each.outcome, each.pathway_name) for each in execution.outcomes} == {
        (Outcome.PROCEEDED, FORWARD)
    }
    assert set(bench.moves().values()) == {1}


def test_saves_stand_before_moves(bench: Bench) -> None:
    bench.execute(save)
    calls = [record.call for record in bench.sandbox.audit.records(accepted=True)]
    assert calls.index("tasks.actions") > max(at for at, call in enumerate(calls) if call == "labels.save")


def test_a_rebuilt_agent_task_is_like_a_fetched_one(bench: Bench) -> None:
    seen: list[AgentTask] = []

    def agent(task: AgentTask, label_row: LabelRowV2) -> None:
        seen.append(task)
        task.proceed(pathway_name=FORWARD)

    fetched = {task.uuid: task for task in bench.gateway.list_tasks(bench.stage)}
    bench.execute(agent, bench.specs[:1])
    assert seen[0].model_dump() == fetched[seen[0].uuid].model_dump()
    assert seen[0].issues is not None
    assert bench.moves() == {str(seen[0].uuid): 1}


def test_a_large_batch_is_worked_through_in_windows() -> None:
    """No call grows with the message: a filter of 250 data hashes would be a request line of 12 kB, and many stop at 8."""
    with SandboxServer.start(tasks=250, seed=1) as sandbox:
        bench = open_bench(sandbox)
        calls = bench.calls_of(lambda: bench.execute(proceed))
        assert calls == {"tasks.list": 3, "tasks.actions": 3}
        assert len(bench.moves()) == 250
