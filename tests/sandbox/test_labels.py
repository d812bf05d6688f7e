"""Label rows through the SDK: listed, created, read, saved, and refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from encord import EncordUserClient, Project
from encord.exceptions import (
    AnswerDictionaryError,
    CorruptedLabelError,
    FeatureDoesNotExistError,
    InvalidArgumentsError,
    MultiLabelLimitError,
    ResourceNotFoundError,
)
from encord.objects import Classification, LabelRowV2, Object
from encord.orm.label_row import LabelStatus
from encord.workflow import AgentStage

from celery_agents.sandbox import Kind, SandboxServer
from celery_agents.sandbox import Project as ProjectState
from celery_agents.sandbox.seed import WEIGHTS

from .conftest import KINDS, SettableClock, add_box, hash_of

RowOf = Callable[[str], LabelRowV2]
WITH_FRAMES = ("image", "imageGroup", "imageSequence", "video", "pdf")


def classify(row: LabelRowV2, project: Project, name: str, answer: str) -> str:
    classification = project.ontology_structure.get_child_by_title(name, type_=Classification)
    whole_file = row.data_type.value in ("audio", "plain_text")
    instance = classification.create_instance(range_only=whole_file)
    options = getattr(classification.attributes[0], "options", None)
    instance.set_answer(next(o for o in options if o.value == answer) if options else answer)
    instance.set_for_frames(0, overwrite=True)
    row.add_classification_instance(instance)
    return str(instance.classification_hash)


def test_the_listing_describes_every_kind(project: Project, state: ProjectState) -> None:
    rows = {row.data_hash: row for row in project.list_label_rows_v2()}
    types = {kind: rows[hash_of(state, kind)].data_type.value for kind in WEIGHTS}

    assert types == {
        "image": "image",
        "imageGroup": "img_group",
        "imageSequence": "img_group",
        "video": "video",
        "audio": "audio",
        "plainText": "plain_text",
        "pdf": "pdf",
    }
    video, audio = rows[hash_of(state, "video")], rows[hash_of(state, "audio")]
    assert (video.number_of_frames, video.fps, video.duration) == (20, 10.0, 2.0)
    assert (video.width, video.height) == (320, 240)
    assert (audio.audio_sample_rate, audio.audio_num_channels, audio.duration) == (8000, 1, 1.0)
    assert rows[hash_of(state, "imageGroup")].number_of_frames == 3


def test_a_row_before_it_is_created(project: Project, state: ProjectState) -> None:
    (row,) = project.list_label_rows_v2(data_hashes=[hash_of(state, "image")])

    assert row.label_hash is None
    assert row.workflow_graph_node is not None
    assert row.workflow_graph_node.title == "Pre-label"
    assert str(row.task_uuid) == state.task(row.data_hash).uuid
    assert row.priority == 0.5
    assert row.client_metadata is None


def test_the_workflow_node_follows_the_task(project: Project, stage: AgentStage, state: ProjectState) -> None:
    task = next(iter(stage.get_tasks()))
    task.proceed("labelled")

    (row,) = project.list_label_rows_v2(data_hashes=[task.data_hash])

    assert row.workflow_graph_node is not None
    assert row.workflow_graph_node.title == "Route"
    assert row.last_actioned_by_user_email == "owner@sandbox.local"


def test_include_flags(project: Project, state: ProjectState) -> None:
    group = hash_of(state, "imageGroup")
    (row,) = project.list_label_rows_v2(
        data_hashes=[group],
        include_client_metadata=True,
        include_images_data=True,
        include_workflow_graph_node=False,
    )

    assert row.client_metadata == state.units[group].item.client_metadata
    assert [image.title for image in row._label_row_read_only_data.images_data or ()] == [
        f.title for f in state.units[group].frames
    ]
    assert row.workflow_graph_node is None


def test_listing_filters(project: Project, state: ProjectState, row_of: RowOf, clock: SettableClock) -> None:
    image = row_of("image")
    video = state.units[hash_of(state, "video")]
    state.put(video.data_hash, "Archive")
    later = clock() + timedelta(hours=1)

    def found(**filters: Any) -> set[str]:
        return {row.data_hash for row in project.list_label_rows_v2(**filters)}

    everything = set(state.units)
    assert found() == everything
    assert found(data_hashes=[]) == set()  # here an empty list is sent, and admits nothing
    assert found(data_hashes=[video.data_hash, str(uuid4())]) == {video.data_hash}
    assert found(label_hashes=[image.label_hash]) == {image.data_hash}
    assert found(label_statuses=[LabelStatus.LABEL_IN_PROGRESS]) == {image.data_hash}
    assert found(label_statuses=[LabelStatus.NOT_LABELLED]) == everything - {image.data_hash}
    assert found(data_title_eq=video.title) == {video.data_hash}
    assert found(data_title_like="VIDEO-%") == {video.data_hash}
    assert found(workflow_graph_node_title_eq="Archive") == {video.data_hash}
    assert found(workflow_graph_node_title_like="Pre_label") == everything - {video.data_hash}
    assert found(edited_before=later) == {image.data_hash}
    assert found(edited_after=later) == set()


@pytest.mark.parametrize("kind", WITH_FRAMES)
def test_objects_come_back_as_they_were_saved(project: Project, row_of: RowOf, kind: str) -> None:
    row = row_of(kind)
    last = row.number_of_frames - 1
    hashes = {add_box(row, project), add_box(row, project, frame=last, x=0.125)}
    row.save()

    (again,) = project.list_label_rows_v2(data_hashes=[row.data_hash])
    again.initialise_labels()

    found = again.get_object_instances()
    assert {instance.object_hash for instance in found} == hashes
    frames = {a.frame: a.coordinates.top_left_x for i in found for a in i.get_annotations()}  # type: ignore[union-attr]
    assert frames.keys() == {0, last}
    assert frames[last] in (0.125, 0.25)
    (annotation, *_) = found[0].get_annotations()
    assert annotation.created_by == "owner@sandbox.local"


@pytest.mark.parametrize("kind", list(WEIGHTS))
def test_classifications_come_back_as_they_were_saved(project: Project, row_of: RowOf, kind: Kind) -> None:
    row = row_of(kind)
    classify(row, project, "Size", "large")
    classify(row, project, "Note", "seen by an agent")
    row.save()

    (again,) = project.list_label_rows_v2(data_hashes=[row.data_hash])
    again.initialise_labels()

    answers = {i.classification_name: i.get_answer() for i in again.get_classification_instances()}
    assert answers["Note"] == "seen by an agent"
    assert answers["Size"].value == "large"  # type: ignore[union-attr]


def test_create_and_save_in_bundles_are_one_call_each(
    project: Project, sandbox: SandboxServer, state: ProjectState
) -> None:
    rows = project.list_label_rows_v2()
    with project.create_bundle() as bundle:
        for row in rows:
            row.initialise_labels(bundle=bundle)
    pictured = [row for row in rows if state.units[row.data_hash].kind in WITH_FRAMES]
    with project.create_bundle() as bundle:
        for row in pictured:
            add_box(row, project)
            row.save(bundle=bundle)
    again = project.list_label_rows_v2()
    with project.create_bundle() as bundle:
        for row in again:
            row.initialise_labels(bundle=bundle)

    assert sandbox.calls["labels.create"] == 1
    assert sandbox.calls["labels.save"] == 1
    assert sandbox.calls["labels.get"] == 1
    assert sum(len(row.get_object_instances()) for row in again) == len(pictured)
    assert {record.label_hash for record in sandbox.audit.records("labels.save")} == {
        r.label_hash for r in pictured
    }


def test_creating_twice_gives_the_same_row(
    project: Project, state: ProjectState, sandbox: SandboxServer
) -> None:
    data_hash = hash_of(state, "image")
    (first,) = project.list_label_rows_v2(data_hashes=[data_hash])
    (second,) = project.list_label_rows_v2(data_hashes=[data_hash])

    first.initialise_labels()
    second.initialise_labels()

    assert first.label_hash == second.label_hash
    created = sandbox.audit.records("labels.create")
    assert [record.detail["existed"] for record in created] == [False, True]


def test_the_last_save_wins(project: Project, row_of: RowOf, state: ProjectState) -> None:
    first = row_of("image")
    (second,) = project.list_label_rows_v2(data_hashes=[first.data_hash])
    second.initialise_labels()
    add_box(first, project)
    kept = add_box(second, project)

    first.save()
    second.save()

    saved = state.labels_of(first.data_hash)
    assert saved is not None
    assert [entry["objectHash"] for entry in saved.objects()] == [kept]
    assert saved.saves == 2


def test_a_save_after_the_task_left_is_accepted_and_noted(
    row_of: RowOf, project: Project, state: ProjectState, sandbox: SandboxServer
) -> None:
    row = row_of("image")
    state.put(row.data_hash, "Archive")
    add_box(row, project)
    row.save()

    (late,) = sandbox.audit.late_saves()
    assert late.data_hash == row.data_hash
    assert late.detail["stage"] == "Archive"


def test_feature_filters_hide_and_a_save_then_loses(
    project: Project, row_of: RowOf, state: ProjectState
) -> None:
    row = row_of("image")
    add_box(row, project)
    classify(row, project, "Size", "small")
    row.save()
    size = project.ontology_structure.get_child_by_title("Size", type_=Classification)

    (partly,) = project.list_label_rows_v2(data_hashes=[row.data_hash])
    partly.initialise_labels(include_object_feature_hashes=set(), include_classification_feature_hashes={"0"})
    assert partly.get_object_instances() == []
    assert partly.get_classification_instances() == []

    (shown,) = project.list_label_rows_v2(data_hashes=[row.data_hash])
    shown.initialise_labels(include_classification_feature_hashes={size.feature_node_hash})
    assert len(shown.get_object_instances()) == len(shown.get_classification_instances()) == 1

    partly.save()
    saved = state.labels_of(row.data_hash)
    assert saved is not None
    assert list(saved.objects()) == []


def test_branches_are_separate_rows(project: Project, state: ProjectState) -> None:
    data_hash = hash_of(state, "image")
    (other,) = project.list_label_rows_v2(data_hashes=[data_hash], branch_name="model")
    other.initialise_labels()
    add_box(other, project)
    other.save()

    (main,) = project.list_label_rows_v2(data_hashes=[data_hash])
    everywhere = project.list_label_rows_v2(data_hashes=[data_hash], include_all_label_branches=True)

    assert other.branch_name == "model"
    assert main.label_hash is None
    assert {row.branch_name: row.label_hash for row in everywhere} == {
        "main": None,
        "model": other.label_hash,
    }


def test_data_links_are_signed_on_request(project: Project, state: ProjectState) -> None:
    import requests

    (row,) = project.list_label_rows_v2(data_hashes=[hash_of(state, "image")])
    row.initialise_labels(include_signed_url=True)

    assert row.data_link is not None
    assert requests.get(row.data_link, timeout=10).headers["Content-Type"] == "image/png"


def spoil(row: LabelRowV2, **changes: Any) -> dict[str, Any]:
    return {**row.to_encord_dict(), **changes}


def save(project: Project, *contents: dict[str, Any], strictly: bool = False) -> None:
    hashes = [content["label_hash"] for content in contents]
    project._client.save_label_rows(hashes, list(contents), validate_before_saving=strictly)  # type: ignore[arg-type]


@pytest.fixture
def boxed(row_of: RowOf, project: Project) -> LabelRowV2:
    row = row_of("image")
    add_box(row, project)
    classify(row, project, "Size", "large")
    return row


def the_object(content: dict[str, Any]) -> dict[str, Any]:
    (unit,) = content["data_units"].values()
    found: dict[str, Any] = unit["labels"]["objects"][0]
    return found


def unknown_feature(content: dict[str, Any]) -> None:
    the_object(content)["featureHash"] = "00000000"


def another_shape(content: dict[str, Any]) -> None:
    the_object(content)["shape"] = "polygon"


def no_coordinates(content: dict[str, Any]) -> None:
    del the_object(content)["boundingBox"]


def coordinate_in_words(content: dict[str, Any]) -> None:
    the_object(content)["boundingBox"]["x"] = "left"


def no_answer_entry(content: dict[str, Any]) -> None:
    content["object_answers"] = {}


def answers_under_another_name(content: dict[str, Any]) -> None:
    content["object_answers"] = {
        **content["object_answers"],
        "else": {"objectHash": "other", "classifications": []},
    }


def unknown_classification(content: dict[str, Any]) -> None:
    next(iter(content["classification_answers"].values()))["featureHash"] = "00000000"


def unknown_attribute(content: dict[str, Any]) -> None:
    next(iter(content["classification_answers"].values()))["classifications"][0]["featureHash"] = "0"


def unknown_option(content: dict[str, Any]) -> None:
    answer = next(iter(content["classification_answers"].values()))
    answer["classifications"][0]["answers"][0]["featureHash"] = "0"


def range_beyond_the_end(content: dict[str, Any]) -> None:
    next(iter(content["classification_answers"].values()))["range"] = [[0, 1]]


def another_file(content: dict[str, Any]) -> None:
    content["data_units"][str(uuid4())] = {"labels": {}}


def no_units(content: dict[str, Any]) -> None:
    del content["data_units"]


def labels_of_no_kind(content: dict[str, Any]) -> None:
    next(iter(content["data_units"].values()))["labels"] = {"objects": 3}


REFUSED: list[tuple[Callable[[dict[str, Any]], None], type[Exception]]] = [
    (unknown_feature, FeatureDoesNotExistError),
    (another_shape, CorruptedLabelError),
    (no_coordinates, CorruptedLabelError),
    (coordinate_in_words, CorruptedLabelError),
    (no_answer_entry, AnswerDictionaryError),
    (answers_under_another_name, CorruptedLabelError),
    (unknown_classification, FeatureDoesNotExistError),
    (unknown_attribute, FeatureDoesNotExistError),
    (unknown_option, FeatureDoesNotExistError),
    (range_beyond_the_end, CorruptedLabelError),
    (another_file, CorruptedLabelError),
    (no_units, CorruptedLabelError),
    (labels_of_no_kind, CorruptedLabelError),
]


@pytest.mark.parametrize(("damage", "error"), REFUSED, ids=lambda value: value.__name__)
def test_a_contradiction_is_refused(
    boxed: LabelRowV2,
    project: Project,
    state: ProjectState,
    sandbox: SandboxServer,
    damage: Callable[[dict[str, Any]], None],
    error: type[Exception],
) -> None:
    content = spoil(boxed)
    damage(content)

    with pytest.raises(error):
        save(project, content)

    saved = state.labels_of(boxed.data_hash)
    assert saved is not None
    assert saved.saves == 0
    (refused,) = sandbox.audit.records("labels.save", accepted=False)
    assert refused.label_hash == boxed.label_hash
    assert refused.data_hash == boxed.data_hash


def test_a_frame_beyond_the_end_is_refused(row_of: RowOf, project: Project) -> None:
    row = row_of("video")
    add_box(row, project, frame=19)
    row.save()
    content = row.to_encord_dict()
    (unit,) = content["data_units"].values()
    unit["labels"]["20"] = unit["labels"].pop("19")

    with pytest.raises(CorruptedLabelError, match="frame 20"):
        save(project, content)


def test_strict_validation_looks_at_the_edges(
    boxed: LabelRowV2, project: Project, state: ProjectState
) -> None:
    content = spoil(boxed)
    the_object(content)["boundingBox"]["x"] = 0.75

    with pytest.raises(CorruptedLabelError, match="outside the picture"):
        save(project, content, strictly=True)
    save(project, content)

    saved = state.labels_of(boxed.data_hash)
    assert saved is not None
    assert saved.saves == 1


def test_one_bad_row_refuses_the_whole_bundle(
    boxed: LabelRowV2, row_of: RowOf, project: Project, state: ProjectState, sandbox: SandboxServer
) -> None:
    good = row_of("video")
    content = spoil(boxed)
    unknown_feature(content)

    with pytest.raises(FeatureDoesNotExistError):
        save(project, good.to_encord_dict(), content)

    saved = state.labels_of(good.data_hash)
    assert saved is not None
    assert saved.saves == 0
    assert len(sandbox.audit.records("labels.save", accepted=False)) == 2


def test_unknown_hashes(client: EncordUserClient, project: Project, boxed: LabelRowV2, row_of: RowOf) -> None:
    nowhere = str(uuid4())
    with pytest.raises(ResourceNotFoundError, match=nowhere):
        project._client.create_label_rows([nowhere])
    with pytest.raises(ResourceNotFoundError, match=nowhere):
        project._client.get_label_rows([nowhere])
    with pytest.raises(ResourceNotFoundError, match=nowhere):
        save(project, spoil(boxed, label_hash=nowhere))
    with pytest.raises(InvalidArgumentsError):
        save(project, spoil(boxed, data_hash=nowhere))
    with pytest.raises(InvalidArgumentsError, match="one label row for each"):
        project._client.save_label_rows([str(boxed.label_hash)] * 2, [spoil(boxed)])  # type: ignore[list-item]


def test_single_requests_work_as_well(
    client: EncordUserClient, project: Project, state: ProjectState
) -> None:
    made = project._client.create_label_row(hash_of(state, "image"))
    read = project._client.get_label_row(made["label_hash"], get_signed_url=False)
    project._client.save_label_row(read["label_hash"], read)

    saved = state.labels_of(made["data_hash"])
    assert saved is not None
    assert saved.saves == 1


def test_too_many_rows_in_one_request(project: Project) -> None:
    with pytest.raises(MultiLabelLimitError) as caught:
        project._client.get_label_rows([str(uuid4()) for _ in range(1001)])

    assert caught.value.maximum_labels_allowed == 1000


def test_all_seven_kinds_are_there(state: ProjectState) -> None:
    assert len(state.units) == KINDS
    assert {unit.kind for unit in state.units.values()} == set(WEIGHTS)


def test_ranges_on_sound_and_text(sandbox: SandboxServer, client: EncordUserClient) -> None:
    from encord.objects.coordinates import AudioCoordinates, TextCoordinates
    from encord.objects.frames import Range

    made = sandbox.state
    structure = made.editor().add_object("Speech", shape="audio").add_object("Phrase", shape="text").structure
    dataset = made.add_dataset("Sound and text")
    made.add_data_units(dataset, [Kind.AUDIO, Kind.PLAIN_TEXT])
    added = made.add_project("Ranges", ontology=made.add_ontology("Ranges", structure), datasets=[dataset])
    project = client.get_project(added.project_hash)
    coordinates: dict[str, Any] = {
        "Speech": AudioCoordinates(range=[Range(0, 4000)]),
        "Phrase": TextCoordinates(range=[Range(3, 9)]),
    }

    for row, name in zip(project.list_label_rows_v2(), coordinates, strict=True):
        row.initialise_labels()
        instance = project.ontology_structure.get_child_by_title(name, type_=Object).create_instance()
        instance.set_for_frames(coordinates[name])
        row.add_object_instance(instance)
        row.save()

    for row, name in zip(project.list_label_rows_v2(), coordinates, strict=True):
        row.initialise_labels()
        (instance,) = row.get_object_instances()
        assert instance.object_name == name
        assert instance.range_list == coordinates[name].range
