"""For code that is not injected but calls: what ``encord_agents.core.utils`` offers to task agents."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from celery_agents.dependencies.media import dep_asset, named
from celery_agents.dependencies.streams import iter_video_with_indices
from celery_agents.frames import vision_extra

if TYPE_CHECKING:
    import encord.storage
    import encord.user_client

T = TypeVar("T")


def get_user_client() -> encord.user_client.EncordUserClient:
    """A client with the key in ``ENCORD_SSH_KEY`` or ``ENCORD_SSH_KEY_FILE``, for ``ENCORD_DOMAIN``. Uses no network.

    Raises:
        SetupError: There is no key, or it cannot be read.
    """
    from celery_agents.gateway.client import open_client

    return open_client()


def client_or_own(
    client: encord.user_client.EncordUserClient | None,
) -> encord.user_client.EncordUserClient:
    """The client that a runner injected; for a dependency that is called by hand without one, its own."""
    return client if client is not None else get_user_client()


@contextmanager
def download_asset(storage_item: encord.storage.StorageItem, frame: int | None = None) -> Iterator[Path]:
    """A storage item's file, for as long as the ``with`` block lasts; see ``dep_asset``.

    Args:
        storage_item: Whose file.
        frame: Of an image group, the number of the image to fetch; of a video or an image sequence, that of the frame
            to extract into a PNG file. An image has no choice of frames.

    Raises:
        NotImplementedError: The item is a group, or an image group and *frame* is None.
        ValueError: There is no such frame, or the item is no file.
        DownloadError: The file cannot be fetched.
    """
    kind = storage_item.item_type.value
    if kind == "imageGroup" and frame is not None:
        storage_item = _image_in_group(storage_item, frame)
    with contextmanager(dep_asset)(storage_item) as path:
        if frame is None or kind not in ("video", "imageSequence"):
            yield path
        else:
            yield _extract(storage_item, path, frame)


def batch_iterator(iterator: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Yield lists of *batch_size* elements, the last one of what is left."""
    elements = iter(iterator)
    while batch := list(itertools.islice(elements, batch_size)):
        yield batch


def _image_in_group(group: encord.storage.StorageItem, number: int) -> encord.storage.StorageItem:
    images = list(group.get_child_items(get_signed_urls=True))
    if not 0 <= number < len(images):
        raise ValueError(f"Image group {group.uuid} has {len(images)} images, and none of number {number}.")
    return images[number]


def _extract(video: encord.storage.StorageItem, path: Path, number: int) -> Path:
    with vision_extra():
        from PIL import Image

    with named(video):
        frame = next(iter_video_with_indices(path, [number]), None)
    if frame is None:
        raise ValueError(f"Storage item {video.uuid} has no frame {number}.")
    picture = path.with_name(f"{path.stem}_{number}.png")
    Image.fromarray(frame.content).save(picture)
    return picture
