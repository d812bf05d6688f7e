"""What is called instead of injected."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from celery_agents.dependencies import batch_iterator, dep_asset, dep_client, download_asset, get_user_client
from celery_agents.errors import SetupError

from .conftest import MakeItem, MediaServer
from .footage import number_in, numbered_video
from .test_media import GREEN, RED, encode, halves


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_file_without_a_frame_is_as_dep_asset_gives_it(make_item: MakeItem) -> None:
    item = make_item("plainText", b"some text")
    with download_asset(item) as path, contextmanager(dep_asset)(item) as asset:
        assert path.read_bytes() == asset.read_bytes() == b"some text"
        assert path.name == asset.name
    assert not path.exists()


@pytest.mark.parametrize("kind", ["video", "imageSequence"])
def test_a_frame_of_a_video_is_a_picture_of_its_own(make_item: MakeItem, kind: str) -> None:
    with download_asset(make_item(kind, numbered_video(50)), frame=37) as path:
        assert path.suffix == ".png"
        assert number_in(pixels_of(path)) == 37
    assert not path.parent.exists()


def test_a_frame_behind_the_end(make_item: MakeItem) -> None:
    item = make_item("video", numbered_video(5))
    with (
        pytest.raises(ValueError, match=f"Storage item {item.uuid} has no frame 5."),
        download_asset(item, 5),
    ):
        pass


def test_an_image_of_a_group(server: MediaServer, make_item: MakeItem) -> None:
    group = make_item("imageGroup")
    images = [make_item("image", encode(halves(colour, RED))) for colour in (RED, GREEN)]
    server.children[str(group.uuid)] = [server.items[str(image.uuid)] for image in images]

    with download_asset(group, frame=1) as path:
        assert tuple(pixels_of(path)[0, 0]) == GREEN
    with pytest.raises(ValueError, match=f"Image group {group.uuid} has 2 images"), download_asset(group, 2):
        pass
    with pytest.raises(NotImplementedError), download_asset(group):
        pass


def test_an_image_has_no_choice_of_frames(make_item: MakeItem) -> None:
    with download_asset(make_item("image", encode(halves(GREEN, RED))), frame=0) as path:
        assert tuple(pixels_of(path)[0, 0]) == GREEN


def test_lists_of_so_many() -> None:
    assert list(batch_iterator(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batch_iterator([], 2)) == []


def test_no_client_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ENCORD_SSH_KEY", "ENCORD_SSH_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    for ask in (get_user_client, dep_client):
        with pytest.raises(SetupError, match="No Encord key"):
            ask()
