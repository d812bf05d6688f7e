"""Data groups through the SDK: several files that are one data unit, each labelled in a space of its own."""

from __future__ import annotations

import pytest
from encord import EncordUserClient, Project
from encord.exceptions import CorruptedLabelError
from encord.objects import LabelRowV2, Object
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.orm.storage import StorageItemType

from celery_agents.sandbox import DataUnit, Kind, SandboxServer

BOX = BoundingBoxCoordinates(height=0.25, width=0.5, top_left_x=0.25, top_left_y=0.5)


@pytest.fixture
def group(sandbox: SandboxServer) -> DataUnit:
    state = sandbox.state
    dataset = state.add_dataset("Groups")
    (unit,) = state.add_data_units(dataset, [Kind.GROUP], names=["visit"])
    state.project(sandbox.project_hash).add_dataset(dataset)
    return unit


def read(project: Project, group: DataUnit) -> LabelRowV2:
    (row,) = project.list_label_rows_v2(data_hashes=[group.data_hash])
    row.initialise_labels()
    return row


def add_boxes(row: LabelRowV2, project: Project) -> set[str]:
    """Put a box on the picture, and one on a frame of the video; their object hashes."""
    box = project.ontology_structure.get_child_by_title("Object", type_=Object)
    on_picture, on_video = box.create_instance(), box.create_instance()
    row.get_space(layout_key="image", type_="image").put_object_instance(on_picture, BOX)
    row.get_space(layout_key="video", type_="video").put_object_instance(on_video, [3], BOX)
    return {str(on_picture.object_hash), str(on_video.object_hash)}


def test_its_item_has_the_parts(client: EncordUserClient, group: DataUnit) -> None:
    item = client.get_storage_item(group.item.uuid)
    assert item.item_type is StorageItemType.GROUP
    parts = list(item.get_child_items(get_signed_urls=True))
    assert [part.name for part in parts] == ["visit-image.png", "visit-video.mp4", "visit-plainText.txt"]
    assert all(part.get_signed_url() for part in parts)


def test_labels_of_each_space_come_back(project: Project, group: DataUnit) -> None:
    row = read(project, group)
    assert row.data_type.value == "group"
    assert len(row.get_spaces()) == 3
    saved = add_boxes(row, project)
    row.save()

    again = read(project, group)
    found = {
        str(instance.object_hash) for space in again.get_spaces() for instance in space.get_object_instances()
    }
    assert found == saved


def test_a_space_that_is_none_of_its_parts_is_refused(project: Project, group: DataUnit) -> None:
    row = read(project, group)
    add_boxes(row, project)
    row._space_map["elsewhere"] = row._space_map.popitem()[1]

    with pytest.raises(CorruptedLabelError):
        row.save()
