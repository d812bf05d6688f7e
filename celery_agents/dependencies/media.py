"""The ``dep_*`` functions that fetch media: a storage item's file, and its first frame."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from celery_agents.frames import vision_extra

# What downloads and decodes is imported when first used: an app module that only names these functions is
# imported by every worker, beat, Flower and shell. The planner reads the dotted annotations below without
# importing encord.
if TYPE_CHECKING:
    import encord.storage
    import numpy as np
    from numpy.typing import NDArray

# By StorageItemType's value, the MIME type to assume where neither the item, its URL nor its name tells one.
FALLBACK_MIME_TYPES = {
    "audio": "audio/mp3",
    "image": "image/png",
    "imageSequence": "video/mp4",
    "pdf": "application/pdf",
    "plainText": "text/plain",
    "video": "video/mp4",
}

# Suffixes are MIME subtypes, as in encord-agents, but for those that no program would recognise as a suffix.
SUFFIXES = {"text/plain": ".txt", "audio/mpeg": ".mp3"}

SUFFIX = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")

# A first frame needs only the head of a video, but the file is fetched whole: so much of it, or of an image, stays in
# memory. What has more is in a file without a name, which is gone with the process.
SPOOLED_BYTES = 16 * 1024**2


def dep_asset(storage_item: encord.storage.StorageItem) -> Generator[Path, None, None]:
    """The storage item's file, in a temporary folder that is removed after the agent, or after its process was killed.

    Yields:
        The path of the file, whose suffix tells its kind as far as that is known.

    Raises:
        NotImplementedError: The item is an image group or a group.
        ValueError: The item is otherwise no single file (a DICOM series, a scene).
        DownloadError: The file cannot be fetched.
    """
    from celery_agents.dependencies.download import download
    from celery_agents.dependencies.folders import temporary_folder

    _refuse_composite(storage_item)
    with temporary_folder() as folder:
        path = folder / f"{storage_item.uuid}{_suffix(storage_item)}"
        # Unbuffered: what a full disk does not take would be tried again when the file is closed, and hide the reason.
        with path.open("wb", buffering=0) as file:
            download(storage_item, file)
        yield path


def dep_single_frame(storage_item: encord.storage.StorageItem) -> NDArray[np.uint8]:
    """The first frame of an image, video, image sequence or image group, upright.

    Returns:
        A writable array of shape [h, w, 3], RGB.

    Raises:
        NotImplementedError: The item is a group.
        ValueError: The item has no frames (audio, text, PDF, …) or cannot be decoded.
        DownloadError: The file cannot be fetched.
        ImportError: The extra ``celery-agents[vision]`` is not installed.
    """
    kind = storage_item.item_type.value
    if kind == "imageGroup":
        return _image(_first_child(storage_item))
    if kind == "image":
        return _image(storage_item)
    if kind in ("video", "imageSequence"):
        return _video_frame(storage_item)
    _refuse_composite(storage_item)
    raise ValueError(f"Storage item {storage_item.uuid} is of type {kind}, which has no frames.")


def _image(storage_item: encord.storage.StorageItem) -> NDArray[np.uint8]:
    with vision_extra():
        from celery_agents.dependencies.images import decode_image
    from celery_agents.dependencies.download import download

    with _spool() as file:
        download(storage_item, file)
        with named(storage_item):
            return decode_image(file)


def _video_frame(storage_item: encord.storage.StorageItem) -> NDArray[np.uint8]:
    with vision_extra():
        from celery_agents.dependencies.videos import decode_first_frame
    from celery_agents.dependencies.download import download

    with _spool() as file:
        download(storage_item, file)
        with named(storage_item):
            return decode_first_frame(file)


@contextmanager
def _spool() -> Iterator[SpooledTemporaryFile[bytes]]:
    file = SpooledTemporaryFile(SPOOLED_BYTES, prefix="celery-agents-")  # noqa: SIM115  (closed below)
    try:
        yield file
    finally:
        # What a full disk did not take is tried again here; why it did not was told.
        with suppress(OSError):
            file.close()


def _first_child(storage_item: encord.storage.StorageItem) -> encord.storage.StorageItem:
    child = next(iter(storage_item.get_child_items(get_signed_urls=True)), None)
    if child is None:
        raise ValueError(f"Image group {storage_item.uuid} has no images.")
    return child


def _refuse_composite(storage_item: encord.storage.StorageItem) -> None:
    """Refuse what is not one file, before the SDK is asked for a signed URL, for which it would only warn."""
    kind = storage_item.item_type.value
    if kind in ("imageGroup", "group"):
        raise NotImplementedError(
            f"Storage item {storage_item.uuid} is of type {kind}, which cannot be downloaded as a whole: "
            "fetch the items of storage_item.get_child_items() one by one."
        )
    if kind in ("dicomSeries", "scene"):
        raise ValueError(f"Storage item {storage_item.uuid} is of type {kind}, which is not a single file.")


def _suffix(storage_item: encord.storage.StorageItem) -> str:
    """The best guess at a file suffix, from the item's MIME type, URL, name or kind, in this order."""
    mime_type = (
        storage_item.mime_type
        or mimetypes.guess_type(urlsplit(storage_item.get_signed_url() or "").path)[0]
        or mimetypes.guess_type(storage_item.name)[0]
        or FALLBACK_MIME_TYPES.get(storage_item.item_type.value, "application/octet-stream")
    )
    mime_type = mime_type.partition(";")[0].strip()
    suffix = SUFFIXES.get(mime_type, "." + mime_type.rpartition("/")[2])
    # Whoever uploads a file may choose its type: only what is part of a file's name becomes part of it.
    return suffix if SUFFIX.fullmatch(suffix) else ""


@contextmanager
def named(storage_item: encord.storage.StorageItem) -> Iterator[None]:
    """Say of which storage item the file could not be decoded."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Storage item {storage_item.uuid} cannot be decoded: {error}") from error
