"""Fetch a storage item's file by its signed URL: streamed, bounded in size and in time, tried again a little.

The address is Encord's answer for the storage item; nothing of a task spec is ever part of it. From there at most five
redirects are followed, to http and https only, never from https back to http, and never to this machine itself or to
its link, where clouds keep what only the machine may know.

The query of a signed URL is a secret: whoever reads it can read the file. The exceptions of requests and
urllib3 quote it, and so does urllib3's debug log. So an error is described by its class only and raised outside
of the ``except`` block, so that no traceback chains to the original; and the log line loses its query.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, ProtocolError

from celery_agents.dependencies import http
from celery_agents.errors import DownloadError, SetupError

if TYPE_CHECKING:
    from encord.storage import StorageItem

MAX_BYTES_VARIABLE = "CELERY_AGENTS_MAX_DOWNLOAD_BYTES"
TOTAL_SECONDS_VARIABLE = "CELERY_AGENTS_DOWNLOAD_TIMEOUT"

#: What is read at once. A thousandfold of it may be unpacked in memory where the server compresses against our wish.
CHUNK_BYTES = 64 * 1024

#: How often a signed URL may redirect. Object stores do not, or once (another region, a content network).
MAX_REDIRECTS = 5

# What object stores answer once a signature has expired: S3 and Azure 403, Google Cloud Storage 400, some
# proxies 401.
EXPIRED = frozenset({400, 401, 403})

# Besides 5xx: the server gave up waiting for the request, or asks for a slower pace.
PASSING = frozenset({408, 429})

# Not all that requests raises may pass by itself: a bad URL or a redirect to ftp:// will not.
PASSING_ERRORS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    HTTPError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one download may take."""

    max_bytes: int = 2 * 1024**3
    total_seconds: float = 600.0
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    #: Seconds before each further attempt. Short, as a worker waits: a longer wait is the message's retry.
    pauses: tuple[float, ...] = (0.2, 1.0)

    @classmethod
    def from_environment(cls) -> Limits:
        """The defaults, but for what the environment variables set.

        Raises:
            SetupError: A variable is not a positive number.
        """
        return cls(
            max_bytes=int(_positive(MAX_BYTES_VARIABLE, cls().max_bytes)),
            total_seconds=_positive(TOTAL_SECONDS_VARIABLE, cls().total_seconds),
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt did not succeed, and whether another one may."""

    detail: str
    transient: bool = False
    status: int | None = None


def download(storage_item: StorageItem, file: IO[bytes], limits: Limits | None = None) -> None:
    """Write the storage item's file into ``file``, which must be seekable, from its start.

    Raises:
        DownloadError: It cannot be fetched. A signed URL that has expired was renewed once, and what may pass
            was tried again, before this.
        ValueError: The item has no signed URL.
    """
    limits = limits or Limits.from_environment()
    deadline = time.monotonic() + limits.total_seconds
    pauses = iter(limits.pauses)
    may_renew = True
    url = _signed_url(storage_item)
    while (failure := _attempt(url, file, limits, deadline)) is not None:
        if is_late := time.monotonic() >= deadline:
            failure = _too_slow(limits)
        if failure.status in EXPIRED and may_renew:
            may_renew = False
            url = _signed_url(storage_item, refetch=True)
        elif failure.transient and not is_late and (pause := next(pauses, None)) is not None:
            time.sleep(pause)
        else:
            raise DownloadError(
                f"The file of storage item {storage_item.uuid} could not be fetched: {failure.detail}.",
                transient=failure.transient,
                status=failure.status,
            )


def _signed_url(storage_item: StorageItem, *, refetch: bool = False) -> str:
    url = storage_item.get_signed_url(refetch=refetch)
    if url is None:
        raise ValueError(f"Storage item {storage_item.uuid} has no signed URL to fetch its file by.")
    return url


def _attempt(url: str, file: IO[bytes], limits: Limits, deadline: float) -> Failure | None:
    """Try once, and say why if it failed."""
    if deadline <= time.monotonic():
        return _too_slow(limits)
    # An earlier attempt may have left a part of the body.
    file.seek(0)
    file.truncate()
    try:
        with _query_unlogged(), http.bounded_session() as session:
            return _fetch(session, url, file, limits, deadline)
    except (requests.RequestException, HTTPError) as error:
        return Failure(_describe(error), transient=isinstance(error, PASSING_ERRORS))
    except http.InsideError:
        return Failure("it was redirected to the machine of this worker")


def _fetch(
    session: requests.Session, url: str, file: IO[bytes], limits: Limits, deadline: float
) -> Failure | None:
    """Follow redirects to the file, and store it."""
    timeout = (limits.connect_seconds, limits.read_seconds)
    # Compression would make the length on the wire another one than that of the file.
    headers = {"Accept-Encoding": "identity"}
    first, before = url, url
    for _ in range(MAX_REDIRECTS + 1):
        if failure := _unfit(before, url):
            return failure
        with (
            http.terms(deadline, may_be_inside=urlsplit(url).netloc == urlsplit(first).netloc),
            session.get(
                url, headers=headers, timeout=timeout, stream=True, allow_redirects=False
            ) as response,
        ):
            target = session.get_redirect_target(response)
            if target is None:
                return _refusal(response, limits) or _store(response, file, limits)
        before, url = url, urljoin(url, target)
    return Failure(f"it was redirected more than {MAX_REDIRECTS} times")


def _unfit(before: str, url: str) -> Failure | None:
    """Say what is wrong with an address, or with the way from the one *before*."""
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https"):
        which = "its signed URL is" if url == before else "it was redirected to what is"
        return Failure(f"{which} neither http nor https")
    if scheme == "http" and urlsplit(before).scheme == "https":
        return Failure("it was redirected from https to http")
    return None


def _refusal(response: requests.Response, limits: Limits) -> Failure | None:
    status = response.status_code
    if not 200 <= status < 300:
        may_pass = status in PASSING or status >= 500
        return Failure(f"the server answered {status}", transient=may_pass, status=status)
    # What urllib3 made of Content-Length: None where there is none, or nonsense.
    if (response.raw.length_remaining or 0) > limits.max_bytes:
        return _too_large(limits, status)
    return None


def _store(response: requests.Response, file: IO[bytes], limits: Limits) -> Failure | None:
    """Write the body. A body that ends before its Content-Length is an error of urllib3's."""
    if "," in response.headers.get("Content-Encoding", ""):
        # Each layer may be a thousandth of the one inside.
        return Failure("it is compressed several times over", status=response.status_code)
    received = 0
    # read1 returns what has arrived; read would wait for a full chunk, for hours if it comes a byte a minute.
    while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
        received += len(chunk)
        if received > limits.max_bytes:
            return _too_large(limits, response.status_code)
        _write(file, chunk)
    return None


def _write(file: IO[bytes], chunk: bytes) -> None:
    left = memoryview(chunk)
    try:
        while left:
            left = left[file.write(left) :]  # an unbuffered file may take less at once
        file.flush()  # and a buffered one more than there is room for
    except OSError as error:
        # Other downloads on this machine will be removed, so there may be room later; not in a second.
        raise DownloadError(
            f"A file could not be written to {tempfile.gettempdir()}: {error.strerror}.", transient=True
        ) from None


def _too_large(limits: Limits, status: int) -> Failure:
    detail = f"it is larger than {limits.max_bytes} bytes (set {MAX_BYTES_VARIABLE} to allow more)"
    return Failure(detail, status=status)


def _too_slow(limits: Limits) -> Failure:
    detail = (
        f"it took longer than {limits.total_seconds:g} seconds (set {TOTAL_SECONDS_VARIABLE} to allow more)"
    )
    return Failure(detail, transient=True)


def _describe(error: Exception) -> str:
    """What happened, by class alone: the text of the error may quote the signed URL."""
    if isinstance(error, ProtocolError):
        return f"the body ended early ({type(error).__name__})"
    return f"the connection failed ({type(error).__name__})"


def _positive(variable: str, default: float) -> float:
    text = os.environ.get(variable, str(default))
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise SetupError(f"The environment variable {variable} must be a positive number, and is {text!r}.")
    return number


_fetching: ContextVar[bool] = ContextVar("celery_agents_fetching", default=False)


@contextmanager
def _query_unlogged() -> Iterator[None]:
    token = _fetching.set(True)
    try:
        yield
    finally:
        _fetching.reset(token)


def _cut_queries(record: logging.LogRecord) -> bool:
    """Cut the query off every URL that urllib3 logs about a download; other requests are let be."""
    if _fetching.get() and isinstance(record.args, tuple):
        record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
    return True


for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_cut_queries)
