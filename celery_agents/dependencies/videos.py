"""Videos to pixels, with PyAV."""

from __future__ import annotations

from typing import IO

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray


def decode_first_frame(file: IO[bytes]) -> NDArray[np.uint8]:
    """The first frame of the first video stream, upright, as a writable array of shape [h, w, 3], RGB.

    Raises:
        ValueError: It is not a video that FFmpeg can read, or it has no frames.
    """
    file.seek(0)
    try:
        with av.open(file, mode="r") as container:
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
