"""The agents that are compared: the same code for every contestant, but for where it imports from."""
# Annotations are read by encord-agents as they stand here, so they are no strings.

import asyncio
import math
import os
import time
from typing import TYPE_CHECKING, Annotated

import numpy as np
from encord.objects import Object
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.workflow.stages.agent import AgentTask
from numpy.typing import NDArray

if TYPE_CHECKING or os.environ.get("AGENTS") != "encord_agents":
    from celery_agents import Depends, TaskAgentReturnStruct
    from celery_agents.dependencies import dep_single_frame
else:
    from encord_agents.tasks import Depends
    from encord_agents.tasks.dependencies import dep_single_frame
    from encord_agents.tasks.models import TaskAgentReturnStruct

PATHWAY = "labelled"
BOX = BoundingBoxCoordinates(top_left_x=0.25, top_left_y=0.25, width=0.5, height=0.5)
#: Seconds that a model server takes to answer.
ANSWER = 0.2
#: Seconds of CPU that an agent computes.
COMPUTING = 0.02
#: What a GPU takes at once, and the seconds that one such pass takes.
LANES, PASS = 32, 0.1


def nothing(task: AgentTask) -> str:
    """Need nothing but the agent task."""
    return PATHWAY


def struct(label_row: LabelRowV2) -> TaskAgentReturnStruct:
    """Return a label row with one more box."""
    _add_box(label_row)
    return TaskAgentReturnStruct(pathway=PATHWAY, label_row=label_row)


def save(label_row: LabelRowV2) -> str:
    """Save it oneself."""
    _add_box(label_row)
    label_row.save()
    return PATHWAY


def frame(task: AgentTask, picture: Annotated[NDArray[np.uint8], Depends(dep_single_frame)]) -> str:
    """Take a picture, which is downloaded and decoded."""
    assert picture.ndim == 3
    return PATHWAY


def wait(task: AgentTask) -> str:
    """Wait for a model server, with a blocking client."""
    time.sleep(ANSWER)
    return PATHWAY


async def wait_async(task: AgentTask) -> str:
    """Wait for a model server, with an async client."""
    await asyncio.sleep(ANSWER)
    return PATHWAY


def compute(task: AgentTask) -> str:
    """Keep a core busy."""
    compute_alone()
    return PATHWAY


def gpu(task: AgentTask) -> str:
    """Call the model for one."""
    time.sleep(PASS)
    return PATHWAY


def gpu_many(tasks: list[AgentTask]) -> list[str]:
    """Call the model for many."""
    time.sleep(PASS * math.ceil(len(tasks) / LANES))
    return [PATHWAY] * len(tasks)


def compute_alone() -> None:
    """Do what `compute` does, without Encord."""
    end = time.thread_time() + COMPUTING
    while time.thread_time() < end:
        pass


def _add_box(label_row: LabelRowV2) -> None:
    instance = label_row.ontology_structure.get_child_by_title("Object", type_=Object).create_instance()
    instance.set_for_frames(BOX, frames=0)
    label_row.add_object_instance(instance)
