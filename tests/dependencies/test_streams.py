"""The frames of videos, one at a time, on real files and a real server."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from celery_agents.dependencies import (
    Frame,
    dep_single_frame,
    dep_video_iterator,
    dep_video_sampler,
    iter_video,
    iter_video_with_indices,
    videos,
)
from celery_agents.errors import DownloadError

from .conftest import MakeItem, MediaServer, Reply
from .footage import growing_video, number_in, numbered_video, without_the_first

COUNT = 120
#: An MPEG transport stream is not found by its times exactly, and a bare H.264 stream has none.
CONTAINERS = [("mp4", "h264"), ("mpegts", "h264"), ("matroska", "mpeg4"), ("avi", "mpeg4"), ("h264", "h264")]


@pytest.fixture(scope="module")
def video() -> bytes:
    return numbered_video(COUNT)


def seen(frames: Iterator[Frame]) -> list[tuple[int, int]]:
    """Which frames they say they are, and which they are."""
    return [(frame.frame, number_in(frame.content)) for frame in frames]


def same(*numbers: int) -> list[tuple[int, int]]:
    return [(number, number) for number in numbers]


# --- dep_video_iterator


def test_frames_that_are_larger_than_the_file_says_are_not_decoded(
    make_item: MakeItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream may change its size at any frame."""

    def sizes() -> set[int]:
        with contextmanager(dep_video_iterator)(make_item("video", growing_video(64, 1024))) as frames:
            return {len(frame.content) for frame in frames}

    assert sizes() == {64, 1024}
    monkeypatch.setattr(videos, "MAX_PIXELS", 512 * 512)
    with pytest.raises(ValueError, match="cannot be decoded"):
        sizes()


@pytest.mark.parametrize("kind", ["video", "imageSequence"])
def test_every_frame_in_order(make_item: MakeItem, video: bytes, kind: str) -> None:
    item = make_item(kind, video)
    with contextmanager(dep_video_iterator)(item) as frames:
        assert isinstance(frames, Iterator)
        first = next(frames)
        assert (first.content == dep_single_frame(item)).all()
        assert first.content.flags.writeable
        assert seen(frames) == same(*range(1, COUNT))


def test_the_video_is_gone_after_the_agent(
    make_item: MakeItem, video: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with contextmanager(dep_video_iterator)(make_item("video", video)) as frames:
        next(frames)
        assert list(tmp_path.rglob("*.mp4"))
    assert list(tmp_path.iterdir()) == []
    assert list(frames) == []


def test_one_frame_is_in_memory_at_a_time(make_item: MakeItem, video: bytes) -> None:
    with contextmanager(dep_video_iterator)(make_item("video", video)) as frames:
        for frame in frames:
            # Not isinstance: a task of another test, which is a proxy, would be looked up.
            alive = [each for each in gc.get_objects() if type(each) is Frame]
            assert alive == [frame]
            del alive


def test_a_video_that_breaks_off_says_so(make_item: MakeItem) -> None:
    item = make_item("video", b"not a video at all")
    with (
        contextmanager(dep_video_iterator)(item) as frames,
        pytest.raises(ValueError, match=f"Storage item {item.uuid} cannot be decoded: "),
    ):
        next(frames)


# --- dep_video_sampler


@pytest.mark.parametrize(("container", "codec"), CONTAINERS)
@pytest.mark.parametrize("unevenly", [False, True])
def test_frames_by_their_numbers(make_item: MakeItem, container: str, codec: str, unevenly: bool) -> None:
    item = make_item("video", numbered_video(COUNT, container, codec, unevenly=unevenly))
    with contextmanager(dep_video_sampler)(item) as sampler:
        assert seen(sampler([1, 2, 3])) == same(1, 2, 3)
        assert seen(sampler([100, 5, 99, 60, 60])) == same(5, 60, 60, 99, 100)
        assert seen(sampler([COUNT - 1])) == same(COUNT - 1)
        assert seen(sampler([COUNT - 1, COUNT, COUNT + 50])) == same(COUNT - 1)
        assert seen(sampler([])) == []


def test_frames_that_are_not_shown_are_not_counted(make_item: MakeItem, video: bytes) -> None:
    item = make_item("video", without_the_first(video, 5))
    with contextmanager(dep_video_iterator)(item) as frames:
        shown = seen(frames)
    assert shown[0] == (0, 5)
    with contextmanager(dep_video_sampler)(item) as sampler:
        assert seen(sampler([0, 60, 110])) == [shown[0], shown[60], shown[110]]


def test_frames_that_are_shown_at_the_same_time(make_item: MakeItem) -> None:
    """Matroska's clock has milliseconds: of a faster camera it cannot tell one frame from the next."""
    item = make_item("video", numbered_video(COUNT, "matroska", "mpeg4", rate=2500))
    with contextmanager(dep_video_sampler)(item) as sampler:
        assert seen(sampler([5, 60, 110])) == same(5, 60, 110)


@pytest.mark.parametrize(
    ("part", "numbers"),
    [(1, range(COUNT)), (0.5, range(0, COUNT, 2)), (1 / 50, (0, 50, 100)), (0.4, (0, 2, 5))],
)
def test_a_part_of_the_frames(
    make_item: MakeItem, video: bytes, part: float, numbers: tuple[int, ...]
) -> None:
    with contextmanager(dep_video_sampler)(make_item("video", video)) as sampler:
        assert seen(sampler(part))[: len(numbers) if part == 0.4 else None] == same(*numbers)


def test_two_samples_side_by_side(make_item: MakeItem, video: bytes) -> None:
    with contextmanager(dep_video_sampler)(make_item("video", video)) as sampler:
        pairs = list(zip(sampler([10, 20]), sampler([100, 110]), strict=True))
    assert [(a.frame, b.frame) for a, b in pairs] == [(10, 100), (20, 110)]


def test_what_is_far_away_is_not_decoded(video: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps: list[int] = []
    jump = videos._Reader._from_keyframe

    def noted(self: videos._Reader, index: videos._Index, keyframe: int) -> Any:
        jumps.append(keyframe)
        return jump(self, index, keyframe)

    monkeypatch.setattr(videos._Reader, "_from_keyframe", noted)
    assert seen(videos.chosen_frames(BytesIO(video), [110])) == same(110)
    assert len(jumps) == 1
    assert 98 <= jumps[0] <= 110


@pytest.mark.parametrize("part", [0, -0.5, 1.5, float("nan")])
def test_a_part_that_is_none_is_refused_at_once(make_item: MakeItem, video: bytes, part: float) -> None:
    with (
        contextmanager(dep_video_sampler)(make_item("video", video)) as sampler,
        pytest.raises(ValueError, match="give more than 0 and at most 1"),
    ):
        sampler(part)


def test_a_number_below_0_is_refused_at_once(make_item: MakeItem, video: bytes) -> None:
    with (
        contextmanager(dep_video_sampler)(make_item("video", video)) as sampler,
        pytest.raises(ValueError, match="There is no frame -1"),
    ):
        sampler([3, -1])


# --- both


@pytest.mark.parametrize(
    ("dependency", "kinds"),
    [
        (dep_video_iterator, ["image", "imageGroup", "audio", "plainText", "pdf", "group"]),
        (dep_video_sampler, ["image", "imageGroup", "imageSequence", "audio", "plainText", "pdf", "group"]),
    ],
)
def test_other_kinds_are_refused_before_any_download(
    server: MediaServer, make_item: MakeItem, dependency: object, kinds: list[str]
) -> None:
    for kind in kinds:
        item = make_item(kind, b"whatever")
        with pytest.raises(NotImplementedError, match=f"storage item {item.uuid} is of type {kind}"):
            next(dependency(item))  # type: ignore[operator]
    assert server.seen == []


@pytest.mark.parametrize("dependency", [dep_video_iterator, dep_video_sampler])
def test_a_file_that_cannot_be_fetched(make_item: MakeItem, dependency: object) -> None:
    with pytest.raises(DownloadError):
        next(dependency(make_item("video", Reply(status=404))))  # type: ignore[operator]


@pytest.mark.parametrize("dependency", [dep_video_iterator, dep_video_sampler])
def test_without_the_extra_nothing_is_downloaded(
    server: MediaServer, make_item: MakeItem, monkeypatch: pytest.MonkeyPatch, dependency: object
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "celery_agents.dependencies.videos", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'celery-agents\[vision\]'"):
        next(dependency(make_item("video", b"")))  # type: ignore[operator]
    assert server.seen == []


def test_a_video_file_at_hand(tmp_path: Path, video: bytes) -> None:
    path = tmp_path / "video.mp4"
    path.write_bytes(video)
    assert seen(iter_video(path)) == same(*range(COUNT))
    assert seen(iter_video_with_indices(path, [70, 7, 100])) == same(70, 7, 100)
