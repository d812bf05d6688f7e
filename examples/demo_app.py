"""The demo's app: two agents for a project in which each picture shows one red box, as a user would write it.

``Pre-label`` finds the box in the pixels and saves it as a label; ``Route`` reads that label and decides by its size.
"""

import os
from typing import Annotated

import numpy as np
from celery import Celery
from encord.objects import Object
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.orm.storage import StorageItemType
from encord.storage import StorageItem
from numpy.typing import NDArray

from celery_agents import Depends, QueueRunner, TaskAgentReturnStruct
from celery_agents.dependencies import dep_single_frame

app = Celery("demo")
app.config_from_object("celeryconfig")
runner = QueueRunner(project_hash=os.environ["CELERY_AGENTS_PROJECT"], app=app)

Frame = NDArray[np.uint8]

WITH_FRAMES = {
    StorageItemType.IMAGE,
    StorageItemType.IMAGE_GROUP,
    StorageItemType.IMAGE_SEQUENCE,
    StorageItemType.VIDEO,
}
#: Part of the picture's area from which a box is large.
LARGE = 0.05


def first_frame(item: StorageItem) -> Frame | None:
    """A dependency of our own around one that comes with the package: sound, text and PDF have no frame."""
    return dep_single_frame(item) if item.item_type in WITH_FRAMES else None


@runner.stage("Pre-label", batch_size=20)
def pre_label(
    label_row: LabelRowV2, frame: Annotated[Frame | None, Depends(first_frame)]
) -> str | TaskAgentReturnStruct:
    """Label the red box of the first frame."""
    box = None if frame is None else find_red_box(frame)
    if box is None:
        return "nothing found"
    _forget_boxes(label_row)
    instance = label_row.ontology_structure.get_child_by_title("Object", type_=Object).create_instance()
    instance.set_for_frames(box, frames=0)
    label_row.add_object_instance(instance)
    return TaskAgentReturnStruct(pathway="labelled", label_row=label_row)


@runner.stage("Route", batch_size=50)
def route(label_row: LabelRowV2) -> str:
    """Send large boxes to people; small ones are done."""
    (box,) = (instance.get_annotation(0).coordinates for instance in label_row.get_object_instances())
    assert isinstance(box, BoundingBoxCoordinates)
    return "large" if is_large(box.width, box.height) else "small"


def find_red_box(frame: Frame) -> BoundingBoxCoordinates | None:
    """The rectangle around all red pixels: those whose red stands out from both green and blue."""
    red, green, blue = (frame[..., channel].astype(np.int16) for channel in range(3))
    rows, columns = np.nonzero((red - green > 90) & (red - blue > 90))
    if not len(rows):
        return None
    height, width = frame.shape[:2]
    left, top = columns.min() / width, rows.min() / height
    return BoundingBoxCoordinates(
        top_left_x=float(left),
        top_left_y=float(top),
        width=float((columns.max() + 1) / width - left),
        height=float((rows.max() + 1) / height - top),
    )


def is_large(width: float, height: float) -> bool:
    """Whether a box of this size, in parts of the picture's, is for people to look at."""
    return width * height >= LARGE


def _forget_boxes(label_row: LabelRowV2) -> None:
    """Make the agent safe to repeat: a batch that comes back replaces its boxes instead of adding to them."""
    for instance in label_row.get_object_instances():
        label_row.remove_object(instance)
