"""Frames in the forms that model APIs take."""

from __future__ import annotations

import base64
import sys
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from celery_agents import Frame

PIXELS = np.zeros((8, 16, 3), np.uint8)
PIXELS[:, :8] = (255, 0, 0)


def decoded(text: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize(
    ("image_format", "media_type", "codec"),
    [
        (".jpeg", "image/jpeg", "JPEG"),
        (".jpg", "image/jpeg", "JPEG"),
        (".png", "image/png", "PNG"),
    ],
)
def test_the_same_picture_in_every_form(image_format: Any, media_type: str, codec: str) -> None:
    frame = Frame(frame=3, content=PIXELS)
    raw = frame.b64_encoding(image_format, "raw")
    url = f"data:{media_type};base64,{raw}"

    picture = decoded(raw)
    assert (picture.format, picture.size) == (codec, (16, 8))
    assert np.abs(np.asarray(picture).astype(int) - PIXELS).mean() < 12  # colours are not swapped
    assert frame.b64_encoding(image_format) == frame.b64_encoding(image_format, "url") == url
    assert frame.b64_encoding(image_format, "openai") == {"type": "image_url", "image_url": {"url": url}}
    assert frame.b64_encoding(image_format, output_format="anthropic") == {
        "type": "image",
        "source": {"type": "base64", "media_type": media_type, "data": raw},
    }


def test_a_jpeg_url_unless_it_is_asked_for_otherwise() -> None:
    assert Frame(0, PIXELS).b64_encoding().startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"image_format": ".gif"}, "image_format='.gif': choose one of .jpeg, .jpg, .png."),
        ({"output_format": "html"}, "output_format='html': choose one of raw, url, openai, anthropic."),
    ],
)
def test_an_unknown_form_is_refused_with_the_choices(given: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Frame(0, PIXELS).b64_encoding(**given)


@pytest.mark.parametrize("content", [np.zeros((2, 2, 7), np.uint8), np.zeros((2, 2, 4), np.uint8)])
def test_what_is_no_rgb_picture_is_refused(content: Any) -> None:
    with pytest.raises(ValueError, match=r"an array of shape \[h, w, 3\]"):
        Frame(0, content).b64_encoding()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'celery-agents\[vision\]'"):
        Frame(0, PIXELS).b64_encoding()
