"""URLs that let anybody fetch one file for a while, as Encord's storage gives out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlencode

from .errors import ForbiddenError
from .identifiers import Clock

PREFIX = "/media/"


class UrlSigner:
    """Signs and checks such URLs with a secret of this process."""

    def __init__(self, clock: Clock, life: float) -> None:
        """`life` is how many seconds a URL stays good."""
        self._clock = clock
        self._life = life
        self._secret = secrets.token_bytes(32)

    def sign(self, base_url: str, file_name: str) -> str:
        """A URL for `file_name` under `base_url`, good from now on."""
        expires = f"{self._clock().timestamp() + self._life:.3f}"
        query = urlencode({"expires": expires, "signature": self._signature(file_name, expires)})
        return f"{base_url}{PREFIX}{file_name}?{query}"

    def check(self, file_name: str, query: Mapping[str, str]) -> None:
        """Raises `ForbiddenError` for a URL that was not signed here, was altered or has expired."""
        expires = query.get("expires", "")
        if not hmac.compare_digest(self._signature(file_name, expires), query.get("signature", "")):
            raise ForbiddenError("the signed URL was altered")
        if float(expires) < self._clock().timestamp():
            raise ForbiddenError("the signed URL has expired")

    def _signature(self, file_name: str, expires: str) -> str:
        return hmac.new(self._secret, f"{file_name}\n{expires}".encode(), hashlib.sha256).hexdigest()
