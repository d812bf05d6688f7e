"""The dep_* functions for media, on real files, a real server and the SDK's real storage items."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from celery_agents.dependencies import (
    dep_asset,
    dep_client,
    dep_single_frame,
    dep_storage_item,
    media,
    videos,
)
from celery_agents.errors import DownloadError

from .conftest import MakeItem, MediaServer, Reply

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> Image.Image:
    """32 wide and 16 high, so that a turn shows in the shape as well as in the colours."""
    image = Image.new("RGB", (32, 16), left)
    image.paste(right, (16, 0, 32, 16))
    return image


def is_near(pixel: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 40)


def video(*colours: tuple[int, int, int]) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for colour in colours:
            pixels = np.full((32, 64, 3), BLUE, np.uint8)
            pixels[:, :32] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def rotated_clockwise(mp4: bytes) -> bytes:
    """Write a quarter turn into the track header's display matrix, as a phone held upright does."""
    matrix = mp4.index(b"tkhd") + 4 + 40
    one = (1 << 16).to_bytes(4, "big")
    minus_one = (-(1 << 16)).to_bytes(4, "big", signed=True)
    none = bytes(4)
    turn = none + one + none + minus_one + none + none + none + none + (1 << 30).to_bytes(4, "big")
    return mp4[:matrix] + turn + mp4[matrix + 36 :]


# --- dep_single_frame, of images


def test_frame_of_an_image_is_rgb_and_writable(make_item: MakeItem) -> None:
    frame = dep_single_frame(make_item("image", encode(halves(RED, BLUE))))

    assert frame.shape == (16, 32, 3)
    assert frame.dtype == np.uint8
    assert tuple(frame[0, 0]) == RED
    assert tuple(frame[0, -1]) == BLUE
    frame[0, 0] = GREEN


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frame_of_a_photo_is_upright(make_item: MakeItem, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    frame = dep_single_frame(make_item("image", encode(halves(RED, BLUE), "JPEG", exif=exif)))

    # Where red, the left half as stored, is to be seen: EXIF 5 to 8 also swap the sides.
    red_corner = {1: (0, 0), 2: (0, -1), 3: (0, -1), 4: (0, 0), 5: (0, 0), 6: (0, 0), 7: (-1, 0), 8: (-1, 0)}
    assert frame.shape[:2] == ((16, 32) if orientation < 5 else (32, 16))
    assert is_near(frame[red_corner[orientation]], RED)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"II*\x00nonsense", b"nonsense"])
def test_broken_exif_does_not_cost_the_frame(make_item: MakeItem, exif: bytes) -> None:
    photo = encode(halves(RED, BLUE), "JPEG", exif=b"Exif\x00\x00" + exif)

    assert dep_single_frame(make_item("image", photo)).shape == (16, 32, 3)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.new("L", (4, 4), 128), (128, 128, 128), id="grey"),
        pytest.param(Image.new("1", (4, 4), 1), (255, 255, 255), id="one bit"),
        pytest.param(Image.new("LA", (4, 4), (9, 0)), (9, 9, 9), id="grey and alpha"),
        pytest.param(Image.new("RGBA", (4, 4), (*RED, 0)), RED, id="alpha is dropped, not painted over"),
        pytest.param(Image.new("RGB", (4, 4), GREEN).quantize(4), GREEN, id="palette"),
        pytest.param(Image.fromarray(np.full((4, 4), 0x8040, np.uint16)), (128, 128, 128), id="16 bit"),
        pytest.param(
            Image.fromarray(np.full((4, 4), 0xFFFF, np.uint16)), (255, 255, 255), id="16 bit, white"
        ),
    ],
)
def test_every_pixel_format_becomes_rgb(
    make_item: MakeItem, image: Image.Image, expected: tuple[int, int, int]
) -> None:
    frame = dep_single_frame(make_item("image", encode(image)))

    assert frame.shape == (4, 4, 3)
    assert tuple(frame[0, 0]) == expected


def test_32_bit_grey_is_read_as_16_bit(make_item: MakeItem) -> None:
    values = np.array([[0, 0x8040, 0x10000, -5]], np.int32)
    frame = dep_single_frame(make_item("image", encode(Image.fromarray(values), "TIFF")))

    assert frame[0, :, 0].tolist() == [0, 128, 255, 0]


def test_frame_of_an_image_group_is_its_first_image(server: MediaServer, make_item: MakeItem) -> None:
    group = make_item("imageGroup")
    images = [make_item("image", encode(halves(colour, BLUE))) for colour in (GREEN, RED)]
    server.children[str(group.uuid)] = [server.items[str(image.uuid)] for image in images]

    assert tuple(dep_single_frame(group)[0, 0]) == GREEN


def test_an_empty_image_group_has_no_frame(server: MediaServer, make_item: MakeItem) -> None:
    group = make_item("imageGroup")
    server.children[str(group.uuid)] = []

    with pytest.raises(ValueError, match=f"Image group {group.uuid} has no images"):
        dep_single_frame(group)


# --- dep_single_frame, of videos


@pytest.mark.parametrize("kind", ["video", "imageSequence"])
def test_frame_of_a_video_is_its_first(make_item: MakeItem, kind: str) -> None:
    frame = dep_single_frame(make_item(kind, video(RED, GREEN, GREEN)))

    assert frame.shape == (32, 64, 3)
    assert frame.dtype == np.uint8
    assert is_near(frame[16, 8], RED)
    assert is_near(frame[16, 56], BLUE)
    frame[0, 0] = GREEN


def test_frame_of_a_video_recorded_sideways_is_upright(make_item: MakeItem) -> None:
    frame = dep_single_frame(make_item("video", rotated_clockwise(video(RED))))

    # Turned clockwise, what was on the left is on top.
    assert frame.shape == (64, 32, 3)
    assert is_near(frame[8, 16], RED)
    assert is_near(frame[56, 16], BLUE)


def test_a_video_larger_than_memory_is_to_hold_is_decoded_from_disk(
    make_item: MakeItem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("celery_agents.dependencies.media.SPOOLED_BYTES", 100)

    assert is_near(dep_single_frame(make_item("video", video(RED)))[16, 8], RED)


# --- dep_single_frame, of what has no frame


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("body", [b"", b"not media at all"])
def test_what_cannot_be_decoded_is_a_value_error(make_item: MakeItem, kind: str, body: bytes) -> None:
    item = make_item(kind, body)

    with pytest.raises(ValueError, match=f"Storage item {item.uuid} cannot be decoded: "):
        dep_single_frame(item)


def test_a_damaged_image_is_a_value_error(make_item: MakeItem) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    item = make_item("image", encode(Image.fromarray(noise))[:3000])

    with pytest.raises(ValueError, match=r"cannot be decoded: OSError: .*truncated"):
        dep_single_frame(item)


def test_an_image_too_large_to_decode_safely_is_a_value_error(
    make_item: MakeItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)

    with pytest.raises(ValueError, match="cannot be decoded: DecompressionBombError: "):
        dep_single_frame(make_item("image", encode(halves(RED, BLUE))))


def test_a_video_of_frames_too_large_to_decode_safely_is_a_value_error(
    make_item: MakeItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "MAX_PIXELS", 64 * 32 - 1)
    with pytest.raises(
        ValueError, match="cannot be decoded: its frames have 2,048 pixels; more than 2,047 are"
    ):
        dep_single_frame(make_item("video", video(RED)))
    monkeypatch.setattr(videos, "MAX_PIXELS", 100_000)  # a decoder adds a margin
    assert dep_single_frame(make_item("video", video(RED))).shape == (32, 64, 3)


def test_postscript_is_not_run(make_item: MakeItem) -> None:
    postscript = encode(halves(RED, BLUE), "EPS")
    with pytest.raises(ValueError, match="UnidentifiedImageError"):
        dep_single_frame(make_item("image", postscript))


class Named(BytesIO):
    """A file with a name, by which FFmpeg makes up its mind as well."""

    name = "list.m3u8"


def test_a_playlist_leads_nowhere(server: MediaServer, make_item: MakeItem) -> None:
    """A video may be a list of addresses where its parts are; FFmpeg would fetch them from wherever it says."""
    playlist = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{server.url}/part.ts\n#EXT-X-ENDLIST\n".encode()
    )
    server.replies["/part.ts"] = [Reply(video(RED))]
    for file in (BytesIO(playlist), Named(playlist)):
        with pytest.raises(ValueError, match="InvalidDataError"):
            videos.decode_first_frame(file)
    with pytest.raises(ValueError, match="cannot be decoded"):
        dep_single_frame(make_item("video", playlist))
    assert [path for path in server.seen if "part.ts" in path] == []


def test_a_session_description_opens_no_port(make_item: MakeItem) -> None:
    description = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    with pytest.raises(ValueError, match="cannot be decoded"):
        dep_single_frame(make_item("video", description))


def test_a_video_without_frames_has_no_first_one(make_item: MakeItem) -> None:
    file = BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        container.start_encoding()

    with pytest.raises(ValueError, match="cannot be decoded: it has no frames"):
        dep_single_frame(make_item("video", file.getvalue()))


def test_a_file_with_sound_only_has_no_frame(make_item: MakeItem) -> None:
    file = BytesIO()
    with av.open(file, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())

    with pytest.raises(ValueError, match="cannot be decoded"):
        dep_single_frame(make_item("video", file.getvalue()))


@pytest.mark.parametrize("kind", ["audio", "plainText", "pdf", "nifti", "dicomFile", "timeseries"])
def test_kinds_without_frames_are_refused_before_any_download(
    server: MediaServer, make_item: MakeItem, kind: str
) -> None:
    item = make_item(kind, b"whatever")

    with pytest.raises(ValueError, match=f"Storage item {item.uuid} is of type {kind}, which has no frames."):
        dep_single_frame(item)
    assert server.seen == []


@pytest.mark.parametrize(("extra", "kind"), [("PIL", "image"), ("av", "video"), ("numpy", "image")])
def test_without_the_extra_the_error_says_what_to_install(
    make_item: MakeItem, monkeypatch: pytest.MonkeyPatch, extra: str, kind: str
) -> None:
    monkeypatch.setitem(sys.modules, extra, None)
    for module in ("images", "videos"):
        monkeypatch.delitem(sys.modules, f"celery_agents.dependencies.{module}", raising=False)

    with pytest.raises(ImportError, match=r"pip install 'celery-agents\[vision\]'"):
        dep_single_frame(make_item(kind, b""))


# --- dep_asset


def test_asset_is_a_file_for_as_long_as_the_agent_runs(make_item: MakeItem) -> None:
    item = make_item("plainText", b"some text", mime_type="text/plain")

    with contextmanager(dep_asset)(item) as path:
        assert path.name == f"{item.uuid}.txt"
        assert path.read_bytes() == b"some text"
        folder = path.parent
    assert not folder.exists()


def test_asset_is_removed_when_the_agent_fails(make_item: MakeItem) -> None:
    def agent() -> None:
        with contextmanager(dep_asset)(make_item("audio", b"la")) as path:
            folders.append(path.parent)
            raise RuntimeError("agent")

    folders: list[Path] = []
    with pytest.raises(RuntimeError, match="agent"):
        agent()
    assert not folders[0].exists()


def test_trouble_with_the_clean_up_does_not_undo_the_agent(
    make_item: MakeItem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with contextmanager(dep_asset)(make_item("audio", b"la")) as path:
        path.unlink()
        path.parent.rmdir()
        path.parent.write_text("no folder any more")


def test_asset_leaves_nothing_behind_when_the_download_fails(
    make_item: MakeItem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with pytest.raises(DownloadError):
        next(dep_asset(make_item("audio", Reply(status=404))))
    assert list(tmp_path.iterdir()) == []


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process have more than 2 kB: what the system answers is like what a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [3_000, 200_000])
@pytest.mark.parametrize(
    "fetch", [lambda item: next(dep_asset(item)), dep_single_frame], ids=["asset", "frame"]
)
def test_a_disk_that_is_full_may_have_room_later(
    make_item: MakeItem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fetch: Callable[[Any], Any],
    size: int,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(media, "SPOOLED_BYTES", 1_000)
    item = make_item("video", bytes(size))
    with (
        full_disk(),
        pytest.raises(DownloadError, match=r"could not be written to .*: File too large") as caught,
    ):
        fetch(item)
    assert caught.value.transient
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "fields", "suffix"),
    [
        ("image", {"mime_type": "image/jpeg"}, ".jpeg"),
        ("audio", {"mime_type": "audio/mpeg"}, ".mp3"),
        ("video", {"mime_type": "video/mpeg"}, ".mpeg"),
        ("plainText", {"mime_type": "text/plain; charset=utf-8"}, ".txt"),
        ("image", {"mime_type": "image/png", "name": "a.webp"}, ".png"),
        ("plainText", {"name": "page.html"}, ".html"),
        ("audio", {}, ".mp3"),
        ("image", {}, ".png"),
        ("imageSequence", {}, ".mp4"),
        ("pdf", {}, ".pdf"),
        ("nifti", {}, ".octet-stream"),
        ("dicomFile", {}, ".octet-stream"),
        # What is no suffix is left out.
        ("image", {"mime_type": "image/../../../x y"}, ""),
        ("image", {"mime_type": "image/.."}, ""),
        ("image", {"mime_type": "image/a\x00b"}, ""),
        ("image", {"mime_type": f"image/{'x' * 300}"}, ""),
    ],
)
def test_suffix_is_the_best_guess(
    make_item: MakeItem, kind: str, fields: dict[str, str], suffix: str
) -> None:
    with contextmanager(dep_asset)(make_item(kind, b"x", **fields)) as path:
        assert path.suffix == suffix


def test_suffix_is_taken_from_the_url_before_the_name(server: MediaServer, make_item: MakeItem) -> None:
    server.replies["/a.webm"] = [Reply(b"x")]
    item = make_item("video", name="a.avi", signed_url=f"{server.url}/a.webm?sig=a.gif")

    with contextmanager(dep_asset)(item) as path:
        assert path.suffix == ".webm"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("imageGroup", NotImplementedError),
        ("group", NotImplementedError),
        ("dicomSeries", ValueError),
        ("scene", ValueError),
    ],
)
def test_what_is_not_one_file_is_refused(make_item: MakeItem, kind: str, error: type[Exception]) -> None:
    item = make_item(kind)

    with pytest.raises(error, match=f"Storage item {item.uuid} is of type {kind}, which "):
        next(dep_asset(item))


def test_a_group_has_no_single_frame(make_item: MakeItem) -> None:
    with pytest.raises(NotImplementedError, match="is of type group, which cannot be downloaded as a whole"):
        dep_single_frame(make_item("group"))


# --- the others


def test_the_others_hand_on_what_they_are_given(make_item: MakeItem) -> None:
    item = make_item("image")

    assert dep_storage_item(item) is item
    assert dep_client(item) is item  # type: ignore[arg-type, comparison-overlap]
