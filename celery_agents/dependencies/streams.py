"""The ``dep_*`` functions that give a video's frames, one at a time: memory does not grow with its length."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from celery_agents.dependencies.media import dep_asset, named
from celery_agents.frames import Frame, vision_extra

if TYPE_CHECKING:
    import encord.storage

#: Which frames to take: a part of them (0.2 is every fifth), or their numbers.
VideoSampler: TypeAlias = Callable[[float | Sequence[int]], Iterator[Frame]]


def dep_video_iterator(storage_item: encord.storage.StorageItem) -> Generator[Iterator[Frame], None, None]:
    """All frames of a video or an image sequence, in order and upright.

    Yields:
        An iterator of frames. The video is on disk for as long as the agent runs; one frame is in memory at a time.
        Decoding trouble shows where it is met, as a ValueError.

    Raises:
        NotImplementedError: The item is something else.
        DownloadError: The file cannot be fetched.
        ImportError: The extra ``celery-agents[vision]`` is not installed.
    """
    _require(storage_item, "dep_video_iterator", "video", "imageSequence")
    with (
        contextmanager(dep_asset)(storage_item) as path,
        closing(_naming(storage_item, iter_video(path))) as frames,
    ):
        yield frames


def dep_video_sampler(storage_item: encord.storage.StorageItem) -> Generator[VideoSampler, None, None]:
    """A function that takes some frames of a video; see ``VideoSampler``.

        for frame in sampler(1 / 5):         # the frames 0, 5, 10, …
        for frame in sampler([30, 10, 20]):  # the frames 10, 20, 30

    It may be called any number of times; frames come in ascending order, and numbers behind the video's end are left
    out. It raises ValueError for a part that is not above 0 and at most 1, and for a number below 0.

    Yields:
        The function. The video is on disk for as long as the agent runs.

    Raises:
        NotImplementedError: The item is no video.
        DownloadError: The file cannot be fetched.
        ImportError: The extra ``celery-agents[vision]`` is not installed.
    """
    _require(storage_item, "dep_video_sampler", "video")
    with contextmanager(dep_asset)(storage_item) as path:
        yield lambda frame_indexer: _naming(
            storage_item, iter_video_with_indices(path, _numbers(frame_indexer))
        )


def iter_video(video_path: Path) -> Iterator[Frame]:
    """All frames of a video file, in order and upright.

    Raises:
        ValueError: It is not a video that FFmpeg can read, or it is damaged; when the frame is asked for.
    """
    from celery_agents.dependencies.videos import all_frames

    with video_path.open("rb") as file:
        yield from all_frames(file)


def iter_video_with_indices(video_path: Path, frame_indices: Iterable[int]) -> Iterator[Frame]:
    """The frames of a video file with these numbers, until one is behind its end.

    In ascending order they are found in one pass; a number below the one before begins another.

    Raises:
        ValueError: As ``iter_video``.
    """
    from celery_agents.dependencies.videos import chosen_frames

    with video_path.open("rb") as file:
        yield from chosen_frames(file, frame_indices)


def _require(storage_item: encord.storage.StorageItem, name: str, *kinds: str) -> None:
    """Refuse another kind, and a missing extra, before anything is downloaded."""
    kind = storage_item.item_type.value
    if kind not in kinds:
        raise NotImplementedError(
            f"{name} is for items of type {' or '.join(kinds)}; storage item {storage_item.uuid} is of type {kind}."
        )
    with vision_extra():
        import celery_agents.dependencies.videos  # noqa: F401


def _numbers(chosen: float | Sequence[int]) -> Iterable[int]:
    if isinstance(chosen, int | float):
        if not 0 < chosen <= 1:
            raise ValueError(f"{chosen!r} is no part of a video's frames: give more than 0 and at most 1.")
        return (int(place / chosen) for place in itertools.count())
    numbers = sorted(chosen)
    if numbers and numbers[0] < 0:
        raise ValueError(f"There is no frame {numbers[0]}: frames are numbered from 0.")
    return numbers


def _naming(
    storage_item: encord.storage.StorageItem, frames: Iterator[Frame]
) -> Generator[Frame, None, None]:
    with named(storage_item):
        yield from frames
