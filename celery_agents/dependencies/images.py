"""Images to pixels, with Pillow, such that the array equals what OpenCV's ``imread`` would give, in RGB."""

from __future__ import annotations

from functools import cache
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

#: What Pillow gives to another program to read: PostScript is one itself, and Ghostscript would run it.
PROGRAMS = frozenset({"EPS"})


def decode_image(file: IO[bytes]) -> NDArray[np.uint8]:
    """The first image in ``file``, upright, as a writable array of shape [h, w, 3], RGB.

    A few bytes can be an image of gigabytes. Pillow refuses one of more than twice ``PIL.Image.MAX_IMAGE_PIXELS``, 179
    million by default, from its header; who has larger ones sets it.

    Raises:
        ValueError: It is not an image that Pillow can read, it is damaged, or it has too many pixels.
    """
    file.seek(0)
    try:
        with Image.open(file, formats=_formats()) as image:
            image.load()
            return np.array(_eight_bit(_upright(image)).convert("RGB"), dtype=np.uint8)
    except Image.DecompressionBombError as error:
        advice = "PIL.Image.MAX_IMAGE_PIXELS sets how many are allowed"
        raise ValueError(f"{type(error).__name__}: {error} ({advice})") from error
    except (OSError, SyntaxError) as error:
        # As a ValueError: an OSError would read as trouble with the disk or the network, which may pass.
        raise ValueError(f"{type(error).__name__}: {error}") from error


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in PROGRAMS)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - Pillow answers broken EXIF in many ways
        # Every kind of program writes EXIF; where it is broken the pixels can still be read.
        return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey down, which Pillow keeps in its modes ``I;16…`` and, in older releases, in ``I``."""
    if not image.mode.startswith("I"):
        return image
    wide = np.clip(np.asarray(image).astype(np.int64), 0, 0xFFFF)
    return Image.fromarray((wide >> 8).astype(np.uint8))
