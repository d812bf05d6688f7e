"""Real media, drawn from a seed: pictures, videos, sound, text and PDF.

Every picture holds one solid red rectangle on a dim, textured ground, so that an agent can find it in the
pixels and the sandbox can tell whether it did. `box_of` says where it is without drawing anything. A pixel
belongs to the rectangle where its red exceeds both green and blue by more than 90; JPEG and video
compression leave that true to within two pixels at the edges.
"""

from __future__ import annotations

import io
import random
import wave
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""Height x width x 3, RGB."""

RED = (226, 34, 30)
# The ground: blocks of this many pixels keep the texture visible and the files small.
_TEXTURE_BLOCK = 8
# A multiple of the 2 x 2 blocks in which video stores colour, so that edges stay sharp.
_GRID = 4
# How far the rectangle moves from one frame of a video to the next, in pixels.
_STEP = _GRID


class Format(StrEnum):
    """The file formats that the sandbox serves. The value is the file's extension."""

    PNG = "png"
    JPEG = "jpeg"
    MP4 = "mp4"
    WAV = "wav"
    TEXT = "txt"
    PDF = "pdf"


MIME_TYPES = {
    Format.PNG: "image/png",
    Format.JPEG: "image/jpeg",
    Format.MP4: "video/mp4",
    Format.WAV: "audio/wav",
    Format.TEXT: "text/plain",
    Format.PDF: "application/pdf",
}
WITH_PICTURES = frozenset({Format.PNG, Format.JPEG, Format.MP4})
SAMPLE_RATE = 8000


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaSpec:
    """All that is needed to draw one file, so that files need not be kept."""

    format: Format
    seed: int
    first_frame: int = 0
    frames: int = 1
    """Number of pictures; 1 for anything but a video."""
    width: int = 320
    height: int = 240
    fps: float = 10.0
    seconds: float = 1.0
    """How long a sound is."""

    @property
    def mime_type(self) -> str:
        """What the file is served as."""
        return MIME_TYPES[self.format]


@dataclass(frozen=True)
class Box:
    """A rectangle in parts of the picture's width and height, as Encord's bounding boxes are."""

    x: float
    y: float
    w: float
    h: float


def boxes_of(spec: MediaSpec) -> tuple[Box, ...]:
    """Where the rectangle is in each frame; empty for media without pictures."""
    if spec.format not in WITH_PICTURES:
        return ()
    return tuple(_box(spec, frame) for frame in range(spec.first_frame, spec.first_frame + spec.frames))


def render(spec: MediaSpec) -> bytes:
    """Draw the file."""
    return _RENDERERS[spec.format](spec)


class MediaCache:
    """Keeps what was drawn last, up to `capacity` bytes."""

    def __init__(self, capacity: int = 64 * 2**20) -> None:
        self._capacity = capacity
        self._files: OrderedDict[MediaSpec, bytes] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, spec: MediaSpec) -> bytes:
        """The file of `spec`, drawn if need be. Safe to call from several threads."""
        with self._lock:
            content = self._files.get(spec)
            if content is not None:
                self._files.move_to_end(spec)
                return content
        content = render(spec)
        with self._lock:
            self._keep(spec, content)
        return content

    def size_of(self, spec: MediaSpec) -> int | None:
        """The size of the file in bytes if it is at hand, else None."""
        content = self._files.get(spec)
        return None if content is None else len(content)

    def _keep(self, spec: MediaSpec, content: bytes) -> None:
        if spec in self._files:
            return
        self._files[spec] = content
        self._size += len(content)
        while self._size > self._capacity and len(self._files) > 1:
            _, oldest = self._files.popitem(last=False)
            self._size -= len(oldest)


def _pixels(spec: MediaSpec, frame: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the rectangle in pixels."""
    chance = random.Random(spec.seed)
    width = _GRID * chance.randint(spec.width // 8 // _GRID, spec.width // 3 // _GRID)
    height = _GRID * chance.randint(spec.height // 8 // _GRID, spec.height // 3 // _GRID)
    room = (spec.width - width) // _GRID
    left = _GRID * ((chance.randint(0, room) + frame * _STEP // _GRID) % (room + 1))
    top = _GRID * chance.randint(0, (spec.height - height) // _GRID)
    return left, top, width, height


def _box(spec: MediaSpec, frame: int) -> Box:
    left, top, width, height = _pixels(spec, frame)
    return Box(left / spec.width, top / spec.height, width / spec.width, height / spec.height)


def _picture(spec: MediaSpec, frame: int) -> Picture:
    chance = np.random.default_rng(spec.seed)
    rows, columns = -(-spec.height // _TEXTURE_BLOCK), -(-spec.width // _TEXTURE_BLOCK)
    coarse = chance.integers(25, 85, size=(rows, columns, 1), dtype=np.uint8)
    tinted = np.concatenate((coarse // 2, coarse, coarse), axis=2)
    picture = tinted.repeat(_TEXTURE_BLOCK, axis=0).repeat(_TEXTURE_BLOCK, axis=1)
    picture = np.ascontiguousarray(picture[: spec.height, : spec.width])
    left, top, width, height = _pixels(spec, frame)
    picture[top : top + height, left : left + width] = RED
    return picture


def _image(spec: MediaSpec) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    # Without chroma subsampling a JPEG's colour edges stay where they are drawn.
    options: dict[str, Any] = (
        {"compress_level": 1} if spec.format is Format.PNG else {"quality": 90, "subsampling": 0}
    )
    Image.fromarray(_picture(spec, spec.first_frame)).save(buffer, format=spec.format.name, **options)
    return buffer.getvalue()


def _video(spec: MediaSpec) -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = container.add_stream("h264", rate=round(spec.fps))
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "18"}
        # One thread: the files are small, and the same seed must give the same bytes.
        stream.codec_context.thread_count = 1
        for frame in range(spec.first_frame, spec.first_frame + spec.frames):
            image = av.VideoFrame.from_ndarray(_picture(spec, frame), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _sound(spec: MediaSpec) -> bytes:
    moments = np.arange(int(SAMPLE_RATE * spec.seconds)) / SAMPLE_RATE
    pitch = 220 + spec.seed % 660
    samples = (12000 * np.sin(2 * np.pi * pitch * moments)).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


_WORDS = (
    "the",
    "red",
    "box",
    "stands",
    "on",
    "dim",
    "ground",
    "and",
    "waits",
    "for",
    "an",
    "agent",
    "all",
    "day",
)


def _sentence(spec: MediaSpec) -> str:
    chance = random.Random(spec.seed)
    return " ".join(chance.choice(_WORDS) for _ in range(12)).capitalize() + "."


def _text(spec: MediaSpec) -> bytes:
    return f"Document {spec.seed}\n\n{_sentence(spec)}\n".encode()


def _pdf(spec: MediaSpec) -> bytes:
    content = f"BT /F1 14 Tf 40 120 Td ({_sentence(spec)}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 200] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    file = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    file += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(file)


_RENDERERS: dict[Format, Callable[[MediaSpec], bytes]] = {
    Format.PNG: _image,
    Format.JPEG: _image,
    Format.MP4: _video,
    Format.WAV: _sound,
    Format.TEXT: _text,
    Format.PDF: _pdf,
}
