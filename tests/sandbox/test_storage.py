"""Storage items, datasets and the media behind signed URLs."""

from __future__ import annotations

import io
import wave
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import av
import numpy as np
import pytest
import requests
from encord import EncordUserClient, Project
from encord.exceptions import AuthorisationError, ResourceNotFoundError
from encord.http.bundle import Bundle
from encord.orm.dataset import DatasetAccessSettings
from encord.orm.storage import StorageItemType
from encord.storage import StorageItem
from numpy.typing import NDArray
from PIL import Image

from celery_agents.sandbox import Box, Kind, SandboxServer
from celery_agents.sandbox import Project as ProjectState

from .conftest import KINDS, SettableClock, hash_of


def item_of(client: EncordUserClient, state: ProjectState, kind: str) -> StorageItem:
    uuid = UUID(state.units[hash_of(state, kind)].item.uuid)
    return client.get_storage_item(uuid, sign_url=True)


def download(item: StorageItem) -> bytes:
    url = item.get_signed_url()
    assert url is not None
    response = requests.get(url, timeout=10)
    response.raise_for_status()
    assert response.headers["Content-Type"].partition(";")[0] == item.mime_type
    return response.content


def find_box(picture: NDArray[np.uint8]) -> Box:
    """The red rectangle as an agent would find it."""
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    ys, xs = np.nonzero((red - green > 90) & (red - blue > 90))
    height, width = picture.shape[:2]
    x, y = int(xs.min()), int(ys.min())
    return Box(x / width, y / height, (int(xs.max()) + 1 - x) / width, (int(ys.max()) + 1 - y) / height)


def assert_close(found: Box, truth: Box, pixels: int) -> None:
    tolerance = pixels / 240
    for side in ("x", "y", "w", "h"):
        assert getattr(found, side) == pytest.approx(getattr(truth, side), abs=tolerance), (found, truth)


def decode(content: bytes) -> list[NDArray[np.uint8]]:
    with av.open(io.BytesIO(content), mode="r") as container:
        frames: list[Any] = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return frames


def test_an_item_describes_its_file(client: EncordUserClient, state: ProjectState) -> None:
    video, audio = item_of(client, state, "video"), item_of(client, state, "audio")

    assert video.item_type is StorageItemType.VIDEO
    assert (video.frame_count, video.fps, video.duration) == (20, 10.0, 2.0)
    assert (video.width, video.height, video.mime_type) == (320, 240, "video/mp4")
    assert audio.audio_sample_rate == 8000
    assert audio.client_metadata == {"number": audio.client_metadata["number"], "kind": "audio"}  # type: ignore[index]
    assert video.name.endswith(".mp4")


def test_the_size_is_known_once_the_file_was_drawn(client: EncordUserClient, state: ProjectState) -> None:
    item = item_of(client, state, "image")
    assert item.file_size is None

    content = download(item)

    item.refetch_data()
    assert item.file_size == len(content)


def test_png_holds_the_box_exactly(client: EncordUserClient, state: ProjectState) -> None:
    content = download(item_of(client, state, "image"))
    picture = np.asarray(Image.open(io.BytesIO(content)))

    assert find_box(picture) == state.units[hash_of(state, "image")].truth[0]


def test_jpeg_holds_the_box_to_a_pixel(client: EncordUserClient, sandbox: SandboxServer) -> None:
    dataset = sandbox.state.add_dataset("Photographs")
    units = sandbox.state.add_data_units(dataset, [Kind.IMAGE] * 5, names=[f"{n}.jpg" for n in range(5)])

    for unit in units:
        item = client.get_storage_item(UUID(unit.item.uuid), sign_url=True)
        picture = Image.open(io.BytesIO(download(item)))
        assert picture.format == "JPEG"
        assert_close(find_box(np.asarray(picture)), unit.truth[0], pixels=1)


def test_video_holds_the_moving_box(client: EncordUserClient, state: ProjectState) -> None:
    frames = decode(download(item_of(client, state, "video")))
    truth = state.units[hash_of(state, "video")].truth

    assert len(frames) == len(truth) == 20
    assert truth[0] != truth[1]
    for frame, box in zip(frames, truth, strict=True):
        assert_close(find_box(frame), box, pixels=2)


def test_an_image_group_has_children_and_no_file(client: EncordUserClient, state: ProjectState) -> None:
    unit = state.units[hash_of(state, "imageGroup")]
    group = item_of(client, state, "imageGroup")

    children = list(group.get_child_items(get_signed_urls=True))

    assert group._orm_item.signed_url is None
    assert [child.name for child in children] == [frame.title for frame in unit.frames]
    for child, box in zip(children, unit.truth, strict=True):
        assert find_box(np.asarray(Image.open(io.BytesIO(download(child))))) == box


def test_an_image_sequence_is_a_video_and_its_pictures(client: EncordUserClient, state: ProjectState) -> None:
    unit = state.units[hash_of(state, "imageSequence")]
    sequence = item_of(client, state, "imageSequence")

    frames = decode(download(sequence))
    children = list(sequence.get_child_items(get_signed_urls=True))

    assert len(frames) == len(children) == len(unit.truth) == 5
    for frame, child, box in zip(frames, children, unit.truth, strict=True):
        assert_close(find_box(frame), box, pixels=2)
        assert find_box(np.asarray(Image.open(io.BytesIO(download(child))))) == box


def test_sound_text_and_pdf_are_real(client: EncordUserClient, state: ProjectState) -> None:
    with wave.open(io.BytesIO(download(item_of(client, state, "audio")))) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (8000, 8000)
    assert download(item_of(client, state, "plainText")).decode().startswith("Document ")
    pdf = download(item_of(client, state, "pdf"))
    assert pdf.startswith(b"%PDF-1.4")
    table = int(pdf.split(b"startxref\n")[1].split(b"\n")[0])
    assert pdf[table:].startswith(b"xref\n0 6\n")


def test_the_same_seed_draws_the_same_files() -> None:
    with SandboxServer.start(tasks=KINDS, seed=3) as one, SandboxServer.start(tasks=KINDS, seed=3) as two:
        first, second = ([*server.state.storage.items.values()] for server in (one, two))
        assert [item.uuid for item in first] == [item.uuid for item in second]
        for item, same in zip(first, second, strict=True):
            if item.media and same.media:
                assert one.state.media.get(item.media) == two.state.media.get(same.media)


def test_bulk_comes_in_the_order_asked(
    client: EncordUserClient, state: ProjectState, sandbox: SandboxServer
) -> None:
    uuids = [UUID(unit.item.uuid) for unit in state.units.values()][::-1]

    items = client.get_storage_items(uuids, sign_url=True)

    assert [item.uuid for item in items] == uuids
    assert sandbox.calls["storage.bulk"] == 1


def test_an_unknown_item_forbids_the_whole_bulk(client: EncordUserClient, state: ProjectState) -> None:
    known = UUID(next(iter(state.units.values())).item.uuid)

    with pytest.raises(AuthorisationError):
        client.get_storage_items([known, uuid4()])
    with pytest.raises(ResourceNotFoundError):
        client.get_storage_item(uuid4())


def test_label_rows_bring_their_items(project: Project, sandbox: SandboxServer) -> None:
    rows = project.list_label_rows_v2()
    with project.create_bundle() as bundle:
        for row in rows:
            row.initialise_storage_item(get_signed_url=True, bundle=bundle)

    names = [row.get_storage_item().name for row in rows]
    assert names == [row.data_title for row in rows]
    assert sandbox.calls["storage.bulk"] == 1


def test_updates_alone_and_bundled(
    client: EncordUserClient, state: ProjectState, sandbox: SandboxServer
) -> None:
    image, video = item_of(client, state, "image"), item_of(client, state, "video")

    image.update(name="renamed.png", description="a picture", client_metadata={"score": 1})
    with Bundle() as bundle:
        image.update(client_metadata={"score": 2}, bundle=bundle)
        video.update(client_metadata={"score": 3}, bundle=bundle)

    image.refetch_data()
    assert (image.name, image._orm_item.description, image.client_metadata) == (
        "renamed.png",
        "a picture",
        {"score": 2},
    )
    assert sandbox.calls["storage.patch"] == sandbox.calls["storage.patch_bulk"] == 1
    assert len(sandbox.audit.records("storage.patch_bulk")) == 2
    assert state.units[hash_of(state, "video")].item.client_metadata == {"score": 3}


def test_an_altered_url_is_forbidden(client: EncordUserClient, state: ProjectState) -> None:
    url = item_of(client, state, "image").get_signed_url()
    other = item_of(client, state, "video").get_signed_url()
    assert url is not None
    assert other is not None

    assert requests.get(url.replace("expires=", "expires=9"), timeout=10).status_code == 403
    assert requests.get(url.partition("?")[0], timeout=10).status_code == 403
    swapped = other.partition("?")[0] + "?" + url.partition("?")[2]
    assert requests.get(swapped, timeout=10).status_code == 403


def test_a_url_expires_and_can_be_renewed(
    client: EncordUserClient, state: ProjectState, clock: SettableClock
) -> None:
    item = item_of(client, state, "image")
    old = item.get_signed_url()
    assert old is not None
    clock.ahead = timedelta(seconds=3601)

    assert requests.get(old, timeout=10).status_code == 403
    clock.ahead = timedelta()
    assert item.get_signed_url(refetch=True) != old


def test_ranges(client: EncordUserClient, state: ProjectState) -> None:
    item = item_of(client, state, "video")
    whole = download(item)
    url = str(item.get_signed_url())

    def part(asked: str) -> requests.Response:
        return requests.get(url, headers={"Range": asked}, timeout=10)

    assert part("bytes=0-99").content == whole[:100]
    assert part("bytes=100-").content == whole[100:]
    assert part("bytes=-10").content == whole[-10:]
    assert part("bytes=0-99").headers["Content-Range"] == f"bytes 0-99/{len(whole)}"
    assert part("bytes=0-99").status_code == 206
    for odd in ("bytes=9-1", "lines=1-2", "bytes=a-b", "bytes=1-2,5-6"):
        assert part(odd).status_code == 200


def test_dataset_and_data_rows(client: EncordUserClient, state: ProjectState) -> None:
    (dataset_hash,) = state.datasets
    dataset = client.get_dataset(
        dataset_hash, dataset_access_settings=DatasetAccessSettings(fetch_client_metadata=True)
    )

    assert dataset.title == "Seeded data"
    assert [row.uid for row in dataset.data_rows] == list(state.units)
    assert dataset.data_rows[0].client_metadata == next(iter(state.units.values())).item.client_metadata
    video = hash_of(state, "video")
    (row,) = dataset.list_data_rows(data_hashes=[video])
    assert (row.data_type.value, str(row.backing_item_uuid)) == ("video", state.units[video].item.uuid)
    assert [row.uid for row in dataset.list_data_rows(title_like="video%")] == [video]
    assert [row.uid for row in dataset.list_data_rows(data_types=[row.data_type])] == [video]
    assert client.get_dataset(dataset_hash, include_data_rows=False)._dataset_instance["data_rows"] == []
    assert [found["dataset"].title for found in client.get_datasets()] == ["Seeded data"]


def test_memory_for_media_is_bounded(sandbox: SandboxServer, state: ProjectState) -> None:
    from celery_agents.sandbox.media import MediaCache

    specs = [unit.item.media for unit in state.units.values() if unit.item.media]
    cache = MediaCache(capacity=1)

    for spec in specs:
        cache.get(spec)

    assert [spec for spec in specs if cache.size_of(spec) is not None] == specs[-1:]
