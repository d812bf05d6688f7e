"""Videos to pixels, with PyAV: the first frame, all of them, or chosen ones. One frame is in memory at a time.

A frame's number is its place in the order of presentation, which is how Encord counts: also where a video's frames
come at uneven times.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from celery_agents.frames import Frame

if TYPE_CHECKING:
    from av.container import InputContainer

#: Most pixels of a frame that is decoded, as many as Pillow allows an image; 8K has 33 million.
MAX_PIXELS = 178_956_970

#: A video may be a list of addresses or ports where its parts are (HLS, SDP): FFmpeg must open none of them.
NO_PROTOCOL = {"protocol_whitelist": "none"}

#: How many frames a jump must leave out to be worth it: the decoder starts anew after one.
WORTH_A_JUMP = 30


def decode_first_frame(file: IO[bytes]) -> NDArray[np.uint8]:
    """The first frame of the first video stream, upright, as a writable array of shape [h, w, 3], RGB.

    Raises:
        ValueError: It is not a video that FFmpeg can read, it has no frames, or its frames have too many pixels.
    """
    with _opened(file) as container:
        picture = next(container.decode(video=0), None)
    if picture is None:
        raise ValueError("it has no frames")
    return _pixels(picture)


def all_frames(file: IO[bytes]) -> Iterator[Frame]:
    """Yield every frame of the first video stream, each as ``decode_first_frame`` gives it.

    Raises:
        ValueError: As there; also in the middle, where the video is damaged.
    """
    with _opened(file) as container:
        for number, picture in enumerate(container.decode(video=0)):
            yield Frame(number, _pixels(picture))


def chosen_frames(file: IO[bytes], numbers: Iterable[int]) -> Iterator[Frame]:
    """Yield the frames of these *numbers*, until one is behind the end of the video.

    In ascending order they are found in one pass. What lies between them is not turned into pixels, and where it is
    long it is not even decoded.

    Raises:
        ValueError: As ``all_frames``.
    """
    index = _index(file)
    with _opened(file) as container:
        reader = _Reader(container, index)
        for number in numbers:
            picture = reader.picture(number)
            if picture is None:
                return
            yield Frame(number, _pixels(picture))


@dataclass(frozen=True, slots=True)
class _Index:
    """At which times a video's frames are presented, in the stream's unit of time: 8 bytes for each frame."""

    times: NDArray[np.int64]  #: ascending, so that a place in it is a frame's number
    keyframes: NDArray[np.int64]  #: the numbers of those at which decoding can start

    def keyframe_before(self, number: int) -> int:
        place = int(np.searchsorted(self.keyframes, number, side="right"))
        return int(self.keyframes[place - 1]) if place else 0

    def number_at(self, time: int | None) -> int:
        return int(np.searchsorted(self.times, time)) if time is not None else -1


class _Reader:
    """Finds pictures by number, and in ascending order decodes no more than it has to."""

    def __init__(self, container: InputContainer, index: _Index | None) -> None:
        self._container = container
        self._index = index
        self._at = -1
        self._picture: av.VideoFrame | None = None
        self._pictures: Iterator[tuple[int, av.VideoFrame]] = enumerate(container.decode(video=0))

    def picture(self, number: int) -> av.VideoFrame | None:
        """The picture of this number, or None where the video is over before."""
        if self._index is not None:
            keyframe = self._index.keyframe_before(number)
            if keyframe - self._at > WORTH_A_JUMP:
                self._pictures = self._from_keyframe(self._index, keyframe)
        self._advance(number)
        if self._at > number or (self._picture is None and self._is_expected(number)):
            # It was passed already. Or was not found by its time: an MPEG transport stream lands behind it.
            self._start_over()
            self._advance(number)
        return self._picture

    def _is_expected(self, number: int) -> bool:
        return self._index is not None and number < len(self._index.times)

    def _advance(self, number: int) -> None:
        while self._at < number:
            self._at, self._picture = next(self._pictures, (number, None))

    def _from_keyframe(self, index: _Index, keyframe: int) -> Iterator[tuple[int, av.VideoFrame]]:
        self._container.seek(int(index.times[keyframe]), stream=self._container.streams.video[0])
        for picture in self._container.decode(video=0):
            yield index.number_at(picture.pts), picture

    def _start_over(self) -> None:
        self._container.seek(0)
        self._index, self._at = None, -1
        self._pictures = enumerate(self._container.decode(video=0))


def _index(file: IO[bytes]) -> _Index | None:
    """Read when each frame is presented, without decoding any; None where the file does not say so for all."""
    times, keyframes = array("q"), array("q")
    with _opened(file) as container:
        for packet in container.demux(video=0):
            if not packet.size or packet.is_discard:  # the end, or what is decoded but not presented
                continue
            if packet.pts is None:
                return None
            times.append(packet.pts)
            if packet.is_keyframe:
                keyframes.append(packet.pts)
    ascending = np.unique(np.asarray(times, np.int64))
    if len(ascending) < len(times):
        return None
    return _Index(ascending, np.searchsorted(ascending, np.sort(np.asarray(keyframes, np.int64))))


@contextmanager
def _opened(file: IO[bytes]) -> Iterator[InputContainer]:
    file.seek(0)
    try:
        with av.open(file, mode="r", container_options=NO_PROTOCOL) as container:
            if not container.streams.video:
                raise ValueError("it has no pictures")
            _limit(container.streams.video[0].codec_context)
            yield container
    except FFmpegError as error:
        # As a ValueError: most FFmpeg errors are OSErrors, which would read as trouble that may pass.
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _limit(decoder: av.VideoCodecContext) -> None:
    pixels = decoder.width * decoder.height
    if pixels > MAX_PIXELS:
        raise ValueError(f"its frames have {pixels:,} pixels; more than {MAX_PIXELS:,} are not decoded")
    # FFmpeg's own limit, for what the frames say of themselves, which may be something else.
    decoder.options = {"max_pixels": str(MAX_PIXELS)}


def _pixels(picture: av.VideoFrame) -> NDArray[np.uint8]:
    pixels = picture.to_ndarray(format="rgb24")
    # Phones record sideways and note the rotation, in degrees counterclockwise; older PyAV does not tell it.
    quarter_turns = round(getattr(picture, "rotation", 0) / 90)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns), dtype=np.uint8)
