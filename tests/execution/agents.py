"""Agents that the tests execute."""

from __future__ import annotations

from encord.objects import Object
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask

from celery_agents.models import TaskAgentReturnStruct

FORWARD = "labelled"
WITH_BOXES = ("image", "video")


def proceed(task: AgentTask) -> str:
    """Need nothing, move on."""
    return FORWARD


def add_box(label_row: LabelRowV2) -> None:
    """Put one bounding box on the first frame."""
    kind = label_row.ontology_structure.get_child_by_title("Object", type_=Object)
    instance = kind.create_instance()
    box = BoundingBoxCoordinates(height=0.2, width=0.3, top_left_x=0.1, top_left_y=0.4)
    instance.set_for_frames(box, 0)
    label_row.add_object_instance(instance)


def save(task: AgentTask, label_row: LabelRowV2) -> TaskAgentReturnStruct:
    """Add a box where the kind of data has frames, and have it saved with the batch."""
    if label_row.data_type.value in WITH_BOXES:
        add_box(label_row)
    return TaskAgentReturnStruct(pathway=FORWARD, label_row=label_row)
