"""HTTP answers that are read until a deadline and no longer.

The timeout of requests and urllib3 starts anew with each byte: a server that sends one a minute is read for hours, and
its headers are read before there is a response to look at. Here every read of the socket ends at the deadline.
"""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_deadline: ContextVar[float] = ContextVar("celery_agents_deadline")


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Let answers be read until *deadline*, on the monotonic clock, in the ``with`` block."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Return the seconds until the deadline. Raises TimeoutError when it has passed."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


class _UntilDeadline(io.RawIOBase):
    """A socket's bytes, until the deadline."""

    def __init__(self, socket: Any, stream: io.RawIOBase) -> None:
        self._socket = socket
        self._stream = stream
        self._patience = socket.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = seconds_left()
        self._socket.settimeout(left if self._patience is None else min(left, self._patience))
        return self._stream.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class BoundedResponse(http.client.HTTPResponse):
    """The ``response_class`` of a connection whose answers are read within ``until``."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        # http.client.HTTPResponse.fp: from where status, headers and body are read.
        self.fp = io.BufferedReader(_UntilDeadline(sock, self.fp.detach()))
