"""A session that keeps its connection for the next call, which then goes the short way.

What requests and urllib3 do between a prepared request and the bytes on a socket, and back, is a good part of what a
call costs. So what is usual with Encord is done here: a request is written in one piece, and ``http.client`` reads
the answer. Connecting, and whatever is not usual, stays theirs, see ``_Adapter._is_usual``.

- A connection that the server has closed meanwhile is replaced before anything is sent. It may also close one while a
  request is under way: then a read is repeated at once, on a new connection. A write is not, as it may have been done.
  It goes only over a connection that was in use a moment ago, which no server closes; else a new one is made for it.
"""

from __future__ import annotations

import http.client
import io
import re
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3 import HTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from celery_agents.deadlines import BoundedResponse, seconds_left

#: Seconds after which a write gets a new connection: less than the shortest that servers keep theirs for (gunicorn: 2).
LONGEST_IDLE_FOR_WRITES = 1.0

#: Longest body that is written in one piece with what comes before it, which takes a copy.
LONGEST_IN_ONE_PIECE = 1024**2

#: How a request of the legacy API that only reads begins, see ``encord.http.request.Request``: all are POST.
_LEGACY_READ = re.compile(r'\{"query_type": "\w+", "query_method": "GET"')

_received = threading.local()


def bytes_received() -> int:
    """Return how many bytes of answers this thread has read so far, bodies as they are after decompression."""
    number: int = getattr(_received, "bytes", 0)
    return number


class KeptSession(requests.Session):
    """A session with at most one connection to a host; used by one call at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = _Adapter()
        for scheme in ("http://", "https://"):
            self.mount(scheme, self.adapter)
        self.is_clean = True  #: the last answer was read to its end
        self._surroundings: dict[str, Any] = {}  #: by server

    def merge_environment_settings(self, url: Any, *given: Any) -> Any:
        """Return which proxy and which certificates the environment names, asked once for each server.

        To ask again for each call would take an eighth of its CPU time.
        """
        server = _server(str(url))
        if server not in self._surroundings:
            self._surroundings[server] = super().merge_environment_settings(url, *given)
        return self._surroundings[server]

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request and read the answer."""
        self.is_clean = False
        response = super().send(request, **options)
        _received.bytes = bytes_received() + len(response.content)
        self.is_clean = True
        return response


def _server(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


class StaleConnectionError(ConnectionError):
    """Raised inside when a connection that was kept is closed instead of answering."""


class _Kept:
    """What both kinds of connection have."""

    response_class = BoundedResponse  # http.client.HTTPConnection.response_class
    sock: Any
    _answers = 0  #: read from this socket so far

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._answers = 0

    def send(self, piece: Any) -> None:
        """Send a piece of a request within the time that is left."""
        # urllib3 would send within the time to connect, or, on a kept connection, what the last call had left.
        if self.sock is None:
            self.connect()
        self.sock.settimeout(seconds_left())
        try:
            super().send(piece)  # type: ignore[misc]
        except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            # Not BrokenPipeError: there may be an answer to what was sent, for which urllib3 looks.
            if not self._answers:
                raise
            raise StaleConnectionError(*error.args) from error

    def getresponse(self) -> Any:
        try:
            response = super().getresponse()  # type: ignore[misc]
        except ConnectionError as error:
            if not self._answers:
                raise
            raise StaleConnectionError(*error.args) from error
        self._answers += 1
        response.kept = self
        return response

    def ask(self, method: str, written: bytes, patience: float) -> tuple[http.client.HTTPResponse, bytes]:
        """Send a request over a connection that is open; return the answer and its body.

        Args:
            method: That of the request.
            written: All of the request.
            patience: Seconds to wait for each piece of the answer.
        """
        with suppress(BrokenPipeError):
            self.send(written)
        self.sock.settimeout(patience)
        with self.response_class(self.sock, method=method) as answer:  # else an error would keep it open
            try:
                answer.begin()
            except ConnectionError as error:
                raise StaleConnectionError(*error.args) from error
            body = answer.read()
        self._answers += 1
        if answer.will_close:
            self.close()  # type: ignore[attr-defined]
        return answer, body


class _Connection(_Kept, HTTPConnection):  # type: ignore[misc]
    pass


class _TLSConnection(_Kept, HTTPSConnection):  # type: ignore[misc]
    pass


class _ConnectionPool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSConnectionPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    """Makes connections of ours, directly and through proxies."""

    idle_since = 0.0

    def __init__(self) -> None:
        super().__init__()
        #: over which a server has answered, by server and what it is trusted by
        self._kept: dict[tuple[Any, ...], Any] = {}

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _ConnectionPool, "https": _TLSConnectionPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = {"http": _ConnectionPool, "https": _TLSConnectionPool}
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request over the connection that was kept, if it can be trusted with it."""
        only_reads = _only_reads(request)
        if not only_reads and time.monotonic() - self.idle_since > LONGEST_IDLE_FOR_WRITES:
            self.close()
        try:
            return self._send(request, *args, **options)
        except requests.ConnectionError as error:
            if not (only_reads and _is_stale(error)):
                raise
        return super().send(request, *args, **options)

    def _send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        place = _server(str(request.url)), options.get("verify"), options.get("cert")
        connection = self._kept.get(place)
        if connection is not None and connection.is_connected and self._is_usual(request, options):
            return self._ask(connection, request, options["timeout"])
        response = super().send(request, *args, **options)
        self._kept[place] = getattr(response.raw, "kept", None)
        return response

    def _is_usual(self, request: requests.PreparedRequest, options: Mapping[str, Any]) -> bool:
        """Whether a request can be sent over a connection as it is, and needs no more than one answer."""
        body: object = request.body
        return (
            isinstance(body, str | bytes | None)
            and len(body or "") <= LONGEST_IN_ONE_PIECE
            and isinstance(options.get("timeout"), tuple)
            and not options.get("stream")
            and not (options.get("proxies") and select_proxy(str(request.url), options["proxies"]))
            and not self.max_retries.status
        )

    def _ask(
        self, connection: Any, request: requests.PreparedRequest, timeout: tuple[float, float]
    ) -> requests.Response:
        try:
            answer, body = connection.ask(request.method, _written(request), timeout[1])
        except TimeoutError as error:
            raise requests.ReadTimeout(error, request=request) from error
        except (OSError, http.client.HTTPException) as error:
            raise requests.ConnectionError(error, request=request) from error
        response = self.build_response(request, answer)  # of which status, reason and headers are used
        response.raw = _body(answer, body)
        return response


def _body(answer: http.client.HTTPResponse, body: bytes) -> Any:
    """Return what was read of an answer, for requests to read it again."""
    encoding = answer.headers.get("content-encoding")
    if encoding is None:
        return io.BytesIO(body)
    # Nobody asked for that.
    headers = {"content-encoding": encoding}
    return HTTPResponse(io.BytesIO(body), headers, preload_content=False, decode_content=False)


def _written(request: requests.PreparedRequest) -> bytes:
    """Return all of a request as it is sent."""
    host = _server(str(request.url)).rpartition("/")[2].rpartition("@")[2]
    headers = {"Host": host, "Accept-Encoding": "identity", **request.headers}
    lines = [f"{_text(name)}: {_text(value)}" for name, value in headers.items()]
    head = "\r\n".join([f"{request.method} {request.path_url} HTTP/1.1", *lines, "\r\n"])
    body = request.body or b""
    return head.encode("latin-1") + (body.encode() if isinstance(body, str) else body)


def _text(header: str | bytes) -> str:
    return header if isinstance(header, str) else header.decode("latin-1")


def _only_reads(request: requests.PreparedRequest) -> bool:
    if request.method == "GET":
        return True
    return isinstance(request.body, str) and _LEGACY_READ.match(request.body) is not None


def _is_stale(error: BaseException | None) -> bool:
    """Whether *error* goes back to a connection that was kept and closed; urllib3 and requests wrap it in turn."""
    while error is not None and not isinstance(error, StaleConnectionError):
        error = error.__context__
    return error is not None
