"""Agents that write labels, priorities and pathways, fail and hold back: declared here for Celery."""

from __future__ import annotations

import os

from celery import Celery
from encord.objects import Classification, Object, Option
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask

from celery_agents import QueueRunner, TaskAgentReturnStruct

app = Celery("both", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.task_default_queue = os.environ["QUEUE"]
app.conf.worker_hijack_root_logger = False
runner = QueueRunner(project_hash=os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage("Pre-label")
def pre_label(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct | str | None:
    """Put a box of a size of its own on each picture; each other kind of data has another answer."""
    match label_row.data_type.value:
        case "image" | "video":
            side = 0.5 + 0.05 * (int(task.data_title[-6:-4]) % 10)
            box = label_row.ontology_structure.get_child_by_title("Object", type_=Object).create_instance()
            box.set_for_frames(
                BoundingBoxCoordinates(height=side / 2, width=side / 2, top_left_x=0.1, top_left_y=0.2), 0
            )
            label_row.add_object_instance(box)
            return TaskAgentReturnStruct("labelled", label_row, label_row_priority=round(side / 2, 2))
        case "audio":
            raise ValueError("no sound")
        case "pdf":
            return None
        case _:
            label_row.save()
            return "nothing found"


@runner.stage("Route")
def route(label_row: LabelRowV2) -> TaskAgentReturnStruct:
    """Say in the labels what was decided from them."""
    (box,) = label_row.get_object_instances()
    coordinates = box.get_annotation(0).coordinates
    assert isinstance(coordinates, BoundingBoxCoordinates)
    size = "large" if coordinates.width > 0.35 else "small"
    kind = label_row.ontology_structure.get_child_by_title("Size", type_=Classification)
    answer = kind.create_instance()
    answer.set_answer(kind.get_child_by_title(size, type_=Option))
    answer.set_for_frames(0)
    label_row.add_classification_instance(answer)
    return TaskAgentReturnStruct(size, label_row)
