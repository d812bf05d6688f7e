"""The ASGI application: reads a request, makes trouble where asked, lets the call run, sends the reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from . import admin, signed_urls
from .admin import Admin
from .calls import Call, Gate, RawRequest, Reply, identify
from .counters import Counters
from .errors import NotEmulatedError, NotFoundError, SandboxError, TooLargeError
from .faults import Fault, Faults, Trouble
from .wire import v2_error

logger = logging.getLogger(__name__)

MEDIA_CALL = "media.get"
LONGEST_TARGET = 65535
"""Bytes of path and query that httptools can parse."""
_PIECES = 8
"""In how many pieces a slow body is sent."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server accepts. The defaults are fair guesses; what Encord's own are is not known."""

    request_line: int = LONGEST_TARGET
    """Bytes of path and query, 64 kB at most; common front ends stop between 8 and 64 kB."""
    body: int = 100 * 2**20
    signature_age: float = 300.0
    """Seconds that a signature stays good."""
    url_life: float = 3600.0
    """Seconds that a signed URL stays good."""


DEFAULT_LIMITS = Limits()


class Application:
    """Serves one `Sandbox`."""

    def __init__(self, gate: Gate, faults: Faults, counters: Counters, admin: Admin, limits: Limits) -> None:
        self.counters = counters
        self._gate = gate
        self._faults = faults
        self._admin = admin
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except SandboxError as error:
            status, body = v2_error(error)
            response = _json_response(Reply(status, orjson.dumps(body)))
        except Exception as error:
            logger.exception("the sandbox failed at %s %s", request.method, request.url.path)
            message = f"the sandbox itself failed: {type(error).__name__}: {error}"
            response = _json_response(Reply(500, orjson.dumps({"message": message})))
        if response is None:
            await _drop_connection(scope, receive)
        else:
            await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response | None:
        """The response, or None for a connection that is to be dropped."""
        limit = min(self._limits.request_line, LONGEST_TARGET)
        if request.scope["state"]["target_length"] > limit:
            return _json_response(Reply(414, orjson.dumps({"message": f"request line over {limit} bytes"})))
        path = request.url.path
        if path.startswith(admin.PREFIX):
            return await self._administer(request)
        if path.startswith(signed_urls.PREFIX):
            return await self._serve_media(request, path.removeprefix(signed_urls.PREFIX))
        return await self._serve_call(request)

    async def _serve_call(self, request: Request) -> Response | None:
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]
        }
        base_url = f"{request.scope['scheme']}://{headers.get('host', '')}"
        target = _target(request.scope)
        raw = RawRequest(request.method, target, headers, await self._body(request), base_url)
        call = identify(raw, self._gate)
        signature = headers.get("signature") or headers.get("authorization", "")
        self.counters.count(call.name, headers.get("x-cloud-trace-context", ""), signature)
        trouble = self._faults.decide(call.name)
        return await _under(trouble, call)

    async def _serve_media(self, request: Request, file_name: str) -> Response | None:
        self.counters.count(MEDIA_CALL, "", "")
        trouble = self._faults.decide(MEDIA_CALL)
        await _wait(trouble.delay)
        if trouble.drop:
            return None
        if trouble.answer:
            return _failure(trouble.answer, None)
        self._gate.signer.check(file_name, request.query_params)
        item = self._gate.state.storage.get(file_name.partition(".")[0])
        if item.media is None:
            raise NotFoundError(f"item {item.uuid} has no file of its own")
        # Drawing takes milliseconds, in which other calls should be answered.
        content = await asyncio.to_thread(self._gate.state.media.get, item.media)
        return _slowly(_file(content, item.media.mime_type, request.headers.get("range")), trouble.slow)

    async def _administer(self, request: Request) -> Response:
        host = request.client.host if request.client else None
        self._admin.check_caller(host, request.headers.get("authorization", ""))
        body = await self._body(request)
        try:
            content = orjson.loads(body) if body else None
        except orjson.JSONDecodeError as error:
            raise NotEmulatedError(f"the body is not JSON: {error}") from error
        answer = self._admin.answer(request.method, request.url.path, request.url.query, content)
        return _json_response(Reply(200, orjson.dumps(answer)))

    async def _body(self, request: Request) -> bytes:
        pieces, size = [], 0
        async for piece in request.stream():
            size += len(piece)
            # What is over the limit is still read, so that the client gets to see the answer.
            if size <= self._limits.body:
                pieces.append(piece)
        if size > self._limits.body:
            raise TooLargeError(f"the body of {size} bytes is over the limit of {self._limits.body}")
        return b"".join(pieces)


async def _under(trouble: Trouble, call: Call) -> Response | None:
    """Run a call with whatever trouble there is in store for it."""
    await _wait(trouble.delay)
    if trouble.drop == "before":
        return None
    if trouble.answer:
        return _failure(trouble.answer, call)
    if trouble.moved:
        call.interfere(trouble.moved)
    reply = call.run()
    if trouble.drop == "after":
        return None
    return _slowly(_json_response(reply), trouble.slow)


async def _wait(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _failure(fault: Fault, call: Call | None) -> Response:
    """What a fault answers instead of the call."""
    if fault.status is None and call is not None:
        return _json_response(call.failure(str(fault.error), "the sandbox was told to fail"))
    status = fault.status or 500
    headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
    if fault.html:
        page = f"<html><body><h1>{status}</h1><p>The sandbox was told to fail.</p></body></html>"
        return Response(page, status, headers, "text/html")
    body = orjson.dumps({"message": "the sandbox was told to fail"})
    return Response(body, status, headers, "application/json")


def _json_response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, media_type="application/json")


def _slowly(response: Response, seconds: float) -> Response:
    """The same response, its body sent in pieces over so many seconds."""
    if seconds <= 0:
        return response
    content = bytes(response.body)
    size = max(1, -(-len(content) // _PIECES))

    async def trickle() -> AsyncIterator[bytes]:
        for start in range(0, len(content), size):
            await asyncio.sleep(seconds / _PIECES)
            yield content[start : start + size]

    return StreamingResponse(trickle(), response.status_code, dict(response.headers))


def _file(content: bytes, mime_type: str, asked_range: str | None) -> Response:
    """A file, or the one range of it that was asked for."""
    headers = {"Accept-Ranges": "bytes"}
    part = _parse_range(asked_range, len(content))
    if part is None:
        return Response(content, headers=headers, media_type=mime_type)
    first, last = part
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(content[first : last + 1], 206, headers, mime_type)


def _parse_range(asked: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of `bytes=a-b`; None for anything that may be answered with the whole file."""
    unit, _, span = (asked or "").partition("=")
    first, dash, last = span.partition("-")
    if unit != "bytes" or not dash or not all(part.isdigit() for part in (first, last) if part):
        return None
    if not first:
        start, end = size - int(last or 0), size - 1
    else:
        start, end = int(first), min(int(last or size), size - 1)
    return (start, end) if 0 <= start <= end else None


def _target(scope: Scope) -> str:
    """Path and query exactly as sent."""
    raw_path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return (raw_path + b"?" + query if query else raw_path).decode("latin-1")


async def _drop_connection(scope: Scope, receive: Receive) -> None:
    """Close the connection without an answer, and wait until the server has noticed."""
    connection: Any = scope["state"]["connection"]
    connection.transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
