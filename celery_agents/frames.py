"""A frame: one picture of a video or an image, with its number, and its encodings for model APIs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ImageFormat: TypeAlias = Literal[".jpeg", ".jpg", ".png"]
JsonObject: TypeAlias = "dict[str, str | dict[str, str]]"

#: The format as Pillow calls it, and its MIME type.
_FORMATS: dict[ImageFormat, tuple[str, str]] = {
    ".jpeg": ("JPEG", "image/jpeg"),
    ".jpg": ("JPEG", "image/jpeg"),
    ".png": ("PNG", "image/png"),
}
#: As OpenCV's default, and so that of encord-agents.
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Frame:
    """One picture, and which one of a video it is."""

    frame: int  #: its number within the video, from 0
    content: NDArray[np.uint8]  #: an array of shape [h, w, 3], RGB

    @overload
    def b64_encoding(
        self, image_format: ImageFormat = ".jpeg", output_format: Literal["raw", "url"] = "url"
    ) -> str: ...

    @overload
    def b64_encoding(
        self, image_format: ImageFormat = ".jpeg", *, output_format: Literal["openai", "anthropic"]
    ) -> JsonObject: ...

    @overload
    def b64_encoding(
        self, image_format: ImageFormat, output_format: Literal["openai", "anthropic"]
    ) -> JsonObject: ...

    def b64_encoding(
        self,
        image_format: ImageFormat = ".jpeg",
        output_format: Literal["raw", "url", "openai", "anthropic"] = "url",
    ) -> str | JsonObject:
        """The picture in base64, in the form that is asked for.

        Args:
            image_format: How the picture is compressed.
            output_format: ``"raw"`` is the base64 text alone, ``"url"`` a data URL, ``"openai"`` and ``"anthropic"``
                are the part of a message's content that these APIs take.

        Raises:
            ValueError: A format is none of these, or the content is no picture.
            ImportError: The extra ``celery-agents[vision]`` is not installed.
        """
        if image_format not in _FORMATS:
            raise ValueError(f"image_format={image_format!r}: choose one of {', '.join(_FORMATS)}.")
        name, media_type = _FORMATS[image_format]
        text = base64.b64encode(_compress(self.content, name)).decode("ascii")
        url = f"data:{media_type};base64,{text}"
        source = {"type": "base64", "media_type": media_type, "data": text}
        forms: dict[str, str | JsonObject] = {
            "raw": text,
            "url": url,
            "openai": {"type": "image_url", "image_url": {"url": url}},
            "anthropic": {"type": "image", "source": source},
        }
        if output_format not in forms:
            raise ValueError(f"output_format={output_format!r}: choose one of {', '.join(forms)}.")
        return forms[output_format]


@contextmanager
def vision_extra() -> Iterator[None]:
    """Say how to install what an import inside of the ``with`` block does not find."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"Frames cannot be decoded or encoded ({error}): pip install 'celery-agents[vision]'."
        ) from error


def _compress(content: NDArray[np.uint8], name: str) -> bytes:
    with vision_extra():
        from PIL import Image

    options: dict[str, Any] = {"quality": _JPEG_QUALITY} if name == "JPEG" else {}
    file = BytesIO()
    try:
        Image.fromarray(content).save(file, name, **options)
    except (TypeError, OSError) as error:
        raise ValueError(
            f"A frame's content must be an array of shape [h, w, 3] of uint8: {error}"
        ) from error
    return file.getvalue()
