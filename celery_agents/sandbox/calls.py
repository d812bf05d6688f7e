"""From a raw HTTP request to a named call of one of the two APIs, and from its result to a reply."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

import orjson

from . import legacy, routes, signatures
from .errors import MalformedError, NotEmulatedError, SandboxError
from .incoming import Incoming, LegacyIncoming
from .signed_urls import UrlSigner
from .state import Sandbox
from .wire import Urls, legacy_error, v2_error

logger = logging.getLogger(__name__)

LEGACY_PATHS = frozenset({"/public", "/public/user"})
UNKNOWN = "unknown"
"""The name of calls that are not emulated."""

_NOBODY = "nobody"
_READS = frozenset({"storage.bulk"})


@dataclass(frozen=True)
class RawRequest:
    """An HTTP request as it came, read to the end."""

    method: str
    target: str
    """Path and query exactly as sent."""
    headers: Mapping[str, str]
    """With lower-case names."""
    body: bytes
    base_url: str
    """Under which the caller knows this server."""

    @property
    def path(self) -> str:
        """The target up to the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """Names and values of the query, in order, decoded."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)


@dataclass(frozen=True)
class Reply:
    """A status and a JSON body."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Gate:
    """What calls need of the server: the state, the URL signer, and how old a signature may be."""

    state: Sandbox
    signer: UrlSigner
    signature_age: float

    def user(self, raw: RawRequest, verify: Callable[[], str]) -> str:
        """Who sent the request: by bearer token, or by the key that `verify` finds to have signed it."""
        scheme, _, token = raw.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.state.user_of_token(token)
        return self.state.user_of_key(verify())

    def perform(self, name: str, *, writes: bool, user: Callable[[], str], act: Callable[[str], Any]) -> Any:
        """Run a call under the lock; a refused write that the rules did not record is recorded here."""
        who = _NOBODY
        audit = self.state.audit
        with self.state.lock:
            known = len(audit)
            try:
                who = user()
                return act(who)
            except SandboxError as error:
                if writes and len(audit) == known:
                    audit.add(name, accepted=False, who=who, detail={"reason": error.detail})
                raise


class Call(Protocol):
    """A call of either API."""

    name: str

    def run(self) -> Reply:
        """Authenticate, act and answer. What the rules refuse is an answer, too."""

    def interfere(self, count: int) -> None:
        """Let somebody else move tasks that the call is about."""

    def failure(self, error: str, detail: str) -> Reply:
        """The API's own form of an error that a fault asks for by name."""


def identify(raw: RawRequest, gate: Gate) -> Call:
    """The call that a request makes. Never raises; what is not emulated is a call that says so."""
    if raw.path in LEGACY_PATHS and raw.method == "POST":
        return LegacyCall(raw, gate)
    return V2Call(raw, gate)


class V2Call:
    """A call of the v2 API: the path names the resource."""

    def __init__(self, raw: RawRequest, gate: Gate) -> None:
        self._raw = raw
        self._gate = gate
        below = raw.path.startswith(routes.PREFIX)
        self._found = routes.find(raw.method, raw.path.removeprefix(routes.PREFIX)) if below else None
        self.name = self._found[0].name if self._found else UNKNOWN

    def run(self) -> Reply:
        """Authenticate, act and answer."""
        writes = self._found is None or (self._raw.method != "GET" and self.name not in _READS)
        try:
            result = self._gate.perform(self.name, writes=writes, user=self._user, act=self._act)
        except SandboxError as error:
            status, body = v2_error(error)
            return Reply(status, orjson.dumps(body))
        return Reply(200, orjson.dumps(result))

    def interfere(self, count: int) -> None:
        """Let somebody else move tasks that the call is about."""
        if self._found is None or not self.name.startswith("tasks."):
            return
        parameters, body = self._found[1], orjson.loads(self._raw.body or b"null")
        project = self._gate.state.projects.get(parameters["project"])
        if project is not None:
            project.interfere(parameters["stage"], _tasks_named(body), count)

    def failure(self, error: str, detail: str) -> Reply:
        """A server error, as v2 has no error names."""
        return Reply(500, orjson.dumps({"message": f"{error}: {detail}"}))

    def _user(self) -> str:
        raw, gate = self._raw, self._gate
        now, age = gate.state.clock().timestamp(), gate.signature_age
        return gate.user(
            raw, lambda: signatures.verify_v2(raw.method, raw.target, raw.headers, raw.body, now=now, age=age)
        )

    def _act(self, who: str) -> Any:
        if self._found is None:
            raise _unknown(f"{self._raw.method} {self._raw.path}")
        route, parameters = self._found
        urls = Urls(self._gate.signer, self._raw.base_url)
        body = _json(self._raw.body)
        return route.answer(Incoming(self._gate.state, who, urls, parameters, self._raw.query, body))


class LegacyCall:
    """A call of the legacy API: everything but the resource is in the body."""

    def __init__(self, raw: RawRequest, gate: Gate) -> None:
        self._raw = raw
        self._gate = gate
        self._query_type, self._method, self._values = _envelope(raw.body)
        query = legacy.QUERIES.get((self._query_type, self._method))
        self._query = query
        self.name = query.name if query else UNKNOWN

    def run(self) -> Reply:
        """Authenticate, act and answer."""
        writes = self._query is None or self._method != "GET"
        try:
            result = self._gate.perform(self.name, writes=writes, user=self._user, act=self._act)
        except SandboxError as error:
            return Reply(200, orjson.dumps(legacy_error(error)))
        return Reply(200, orjson.dumps({"status": 200, "response": result}))

    def interfere(self, count: int) -> None:
        """The legacy API has no calls on tasks."""

    def failure(self, error: str, detail: str) -> Reply:
        """The form in which this API reports an error that a fault asks for by name."""
        return Reply(200, orjson.dumps({"status": 500, "response": [error], "payload": detail}))

    def _user(self) -> str:
        raw = self._raw
        return self._gate.user(raw, lambda: signatures.verify_v1(raw.headers.get("authorization"), raw.body))

    def _act(self, who: str) -> Any:
        if self._query is None:
            raise _unknown(
                f"{self._raw.path} with query type {self._query_type!r} and method {self._method!r}"
            )
        if not isinstance(self._values, Mapping):
            raise MalformedError("values must be an object")
        incoming = LegacyIncoming(
            self._gate.state,
            who,
            Urls(self._gate.signer, self._raw.base_url),
            self._raw.headers.get("resourcetype", ""),
            self._raw.headers.get("resourceid", ""),
            self._values.get("uid"),
            self._values.get("payload"),
        )
        return self._query.answer(incoming)


def _envelope(body: bytes) -> tuple[str, str, Any]:
    """Query type, method and values of a legacy body; blanks for a body that has none."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, Mapping):
        return "", "", None
    return str(content.get("query_type")), str(content.get("query_method")), content.get("values")


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body) if body else None
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"the body is not JSON: {error}") from error


def _unknown(route: str) -> NotEmulatedError:
    logger.warning("not emulated: %s", route)
    return NotEmulatedError(f"the sandbox does not emulate {route}")


def _tasks_named(body: Any) -> list[str] | None:
    """The tasks that an actions or move request is about; None for a listing."""
    if isinstance(body, list):
        return [str(entry.get("taskUuid")) for entry in body if isinstance(entry, Mapping)]
    return body.get("taskUuids") if isinstance(body, Mapping) else None
