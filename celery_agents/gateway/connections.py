"""Connections to Encord that are kept for the next call, and calls that end at a deadline.

The SDK opens a session, and with it TCP and TLS, for each call. Both of its APIs get their session from
``encord.http.querier.create_new_session``, which is all that is replaced here: by a function that hands every call on
to the SDK's own, unless it comes from a client of ours. Our clients are known by ``connection_retries`` of their
settings, which the SDK passes through as it is. Other clients in the process, the user's own too, notice nothing.

- A call takes a session that nobody uses, the last one used first, and gives it back when the answer has been read.
  So n threads or greenlets that call at once have n connections, and a thread that calls again has the one it had.
- A session is closed when it has been idle for a while, so that no worker holds what the server has long closed.
- A fork closes what is idle before it happens: a child never shares a connection with its parent.
- A connection that the server has closed meanwhile is replaced before anything is sent. It may also close one while a
  request is under way: then a read is repeated at once, on a new connection. A write is not, as it may have been done.
  It goes only over a connection that was in use a moment ago, which no server closes; else a new one is made for it.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import requests
from encord.http import querier
from encord.http.v2 import api_client
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import Retry

from celery_agents.deadlines import BoundedResponse, seconds_left, until
from celery_agents.gateway.permits import Permit, await_permit
from celery_agents.sessions import Sessions

logger = logging.getLogger(__name__)

#: Seconds after which a write gets a new connection: less than the shortest that servers keep theirs for (gunicorn: 2).
LONGEST_IDLE_FOR_WRITES = 1.0

#: How a request of the legacy API that only reads begins, see ``encord.http.request.Request``: all are POST.
_LEGACY_READ = re.compile(r'\{"query_type": "\w+", "query_method": "GET"')

_sdk_factory = getattr(querier, "create_new_session", None)
_KNOWN_PARAMETERS = ["max_retries", "backoff_factor", "connect_retries", "backoff_jitter"]


class OurRetries(int):
    """``RequestsSettings.connection_retries`` of a client of ours.

    Attributes:
        call_timeout: Seconds that one call may take in all.
        keep: Whether its connections are kept for the next call.
        permit: Asked before each call.
    """

    call_timeout: float
    keep: bool
    permit: Permit | None


def our_retries(times: int, call_timeout: float, *, keep: bool, permit: Permit | None) -> int:
    """Return *times* for ``RequestsSettings.connection_retries``, with which a client's calls go through here.

    Where the SDK is not as we know it, its own sessions stay: each call a connection, each wait bounded, but not their
    sum, and no permit asked for. That is said once.
    """
    if not _is_in_place():
        return times
    marked = OurRetries(times)
    marked.call_timeout, marked.keep, marked.permit = call_timeout, keep, permit
    return marked


@functools.cache
def _is_in_place() -> bool:
    """Put our function in the place of the SDK's, at the first call; return whether that could be done."""
    homes: tuple[Any, ...] = (querier, api_client)
    known = all(getattr(home, "create_new_session", None) is _sdk_factory for home in homes)
    if (
        not known
        or _sdk_factory is None
        or list(inspect.signature(_sdk_factory).parameters) != _KNOWN_PARAMETERS
    ):
        logger.warning(
            "encord.http.querier.create_new_session is not what it was, so each call to Encord opens a connection of "
            "its own, agents_call_timeout bounds each wait for Encord, not their sum, and agents_rate_limit limits "
            "nothing. A newer celery-agents may know this encord."
        )
        return False
    for home in homes:
        home.create_new_session = _create_new_session
    return True


def _create_new_session(
    max_retries: int | None, backoff_factor: float, connect_retries: int, backoff_jitter: float = 0.0
) -> AbstractContextManager[requests.Session]:
    """Stand in for ``encord.http.querier.create_new_session``."""
    if not isinstance(connect_retries, OurRetries):
        sessions: AbstractContextManager[requests.Session] = _sdk_factory(  # type: ignore[misc]  # known to be there
            max_retries, backoff_factor, connect_retries, backoff_jitter
        )
        return sessions
    return _leased(
        connect_retries, _policy(max_retries, backoff_factor, int(connect_retries), backoff_jitter)
    )


@functools.lru_cache
def _policy(*arguments: Any) -> Retry:
    """Return what the SDK's own session would repeat."""
    with _sdk_factory(*arguments) as session:  # type: ignore[misc]  # known to be there
        policy: Retry = session.get_adapter("https://").max_retries
    return policy


@contextmanager
def _leased(settings: OurRetries, policy: Retry) -> Iterator[requests.Session]:
    """Hand out a session for one call, and end the call when its time is up."""
    deadline = time.monotonic() + settings.call_timeout
    await_permit(settings.permit, settings.call_timeout)
    session, idle_since = _sessions.take() if settings.keep else (_Session(), 0.0)
    session.adapter.max_retries, session.adapter.idle_since = policy, idle_since
    with until(deadline):
        try:
            yield session
        finally:
            if settings.keep and session.is_clean:
                _sessions.give_back(session)
            else:
                session.close()


_received = threading.local()


def bytes_received() -> int:
    """Return how many bytes of answers this thread has read so far, bodies as they are after decompression."""
    number: int = getattr(_received, "bytes", 0)
    return number


class _Session(requests.Session):
    """A session with at most one connection to a host; used by one call at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = _Adapter()
        for scheme in ("http://", "https://"):
            self.mount(scheme, self.adapter)
        self.is_clean = True  #: the last answer was read to its end
        self._surroundings: dict[str, Any] = {}  #: by the beginning of a URL

    def merge_environment_settings(self, url: Any, *given: Any) -> Any:
        """Return which proxy and which certificates the environment names, asked once for each server.

        To ask again for each call would take an eighth of its CPU time.
        """
        server = "/".join(str(url).split("/", 3)[:3])
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


_sessions = Sessions(_Session)


def close_idle() -> None:
    """Close the connections that no call uses."""
    _sessions.close()


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
        return response


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
            return super().send(request, *args, **options)
        except requests.ConnectionError as error:
            if not (only_reads and _is_stale(error)):
                raise
        return super().send(request, *args, **options)


def _only_reads(request: requests.PreparedRequest) -> bool:
    if request.method == "GET":
        return True
    return isinstance(request.body, str) and _LEGACY_READ.match(request.body) is not None


def _is_stale(error: BaseException | None) -> bool:
    """Whether *error* goes back to a connection that was kept and closed; urllib3 and requests wrap it in turn."""
    while error is not None and not isinstance(error, StaleConnectionError):
        error = error.__context__
    return error is not None
