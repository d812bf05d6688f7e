"""Videos whose frames carry their number in the picture, in several containers and codecs."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
from numpy.typing import NDArray

BITS = 10
STRIPE = 6
TICKS_PER_FRAME = 512  # of an MP4 with 25 frames a second


def numbered_video(
    count: int, container: str = "mp4", codec: str = "h264", *, rate: int = 25, unevenly: bool = False
) -> bytes:
    """A video of so many frames; *unevenly*: some are shown for longer. B-frames, and a keyframe now and then."""
    file = BytesIO()
    with av.open(file, "w", format=container) as video:
        stream = video.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
        time = 0
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(_picture(number), format="rgb24")
            if unevenly:
                picture.pts, picture.time_base = time, Fraction(1, 25)
                time += 4 if number % 7 == 0 else 1
            video.mux(stream.encode(picture))
        video.mux(stream.encode())
    return file.getvalue()


def growing_video(small: int, large: int) -> bytes:
    """A bare stream of frames that are at first so many pixels wide and high, and later so many."""
    return b"".join(map(_still, (small, large)))


def _still(size: int) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="h264") as video:
        stream = video.add_stream("h264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        for _ in range(2):
            pixels = np.zeros((size, size, 3), np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        video.mux(stream.encode())
    return file.getvalue()


def without_the_first(mp4: bytes, frames: int) -> bytes:
    """Let an edit list leave out the first frames, as trimming on a phone does: they are in the file, but not shown."""
    start = mp4.index(b"elst") + 16
    ticks = int.from_bytes(mp4[start : start + 4], "big") + frames * TICKS_PER_FRAME
    return mp4[:start] + ticks.to_bytes(4, "big") + mp4[start + 4 :]


def number_in(pixels: NDArray[np.uint8]) -> int:
    """Which frame a picture is, by its stripes."""
    middle = pixels[20:28]
    return sum(1 << bit for bit in range(BITS) if middle[:, bit * STRIPE + 2 : bit * STRIPE + 4].mean() > 128)


def _picture(number: int) -> NDArray[np.uint8]:
    pixels = np.zeros((48, 64, 3), np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            pixels[:, bit * STRIPE : (bit + 1) * STRIPE] = 255
    return pixels
