"""Videos to pixels, with PyAV."""

from __future__ import annotations

from typing import IO

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

#: Most pixels of a frame that is decoded, as many as Pillow allows an image; 8K has 33 million.
MAX_PIXELS = 178_956_970

#: A video may be a list of addresses or ports where its parts are (HLS, SDP): FFmpeg must open none of them.
NO_PROTOCOL = {"protocol_whitelist": "none"}


def decode_first_frame(file: IO[bytes]) -> NDArray[np.uint8]:
    """The first frame of the first video stream, upright, as a writable array of shape [h, w, 3], RGB.

    Raises:
        ValueError: It is not a video that FFmpeg can read, it has no frames, or its frames have too many pixels.
    """
    file.seek(0)
    try:
        with av.open(file, mode="r", container_options=NO_PROTOCOL) as container:
            _limit(container.streams.video[0].codec_context)
            frame = next(container.decode(video=0), None)
    except (FFmpegError, IndexError) as error:
        # As a ValueError: most FFmpeg errors are OSErrors, which would read as trouble that may pass.
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if frame is None:
        raise ValueError("it has no frames")
    pixels = frame.to_ndarray(format="rgb24")
    # Phones record sideways and note the rotation, in degrees counterclockwise; older PyAV does not tell it.
    quarter_turns = round(getattr(frame, "rotation", 0) / 90)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns), dtype=np.uint8)


def _limit(decoder: av.VideoCodecContext) -> None:
    pixels = decoder.width * decoder.height
    if pixels > MAX_PIXELS:
        raise ValueError(f"its frames have {pixels:,} pixels; more than {MAX_PIXELS:,} are not decoded")
    # FFmpeg's own limit, for what the frames say of themselves, which may be something else.
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
