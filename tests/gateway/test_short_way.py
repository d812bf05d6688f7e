"""Over a kept connection a call goes a shorter way, and neither the server nor the caller can tell."""

from __future__ import annotations

import gzip
import io
import json
import socketserver
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import requests
import urllib3

from celery_agents.deadlines import until as until_deadline
from celery_agents.gateway.kept import KeptSession

PATIENCE = 20.0  #: seconds after which a test has failed
BODY = json.dumps({"name": "Žluť", "many": "x" * 100_000}).encode()


class Server(socketserver.ThreadingTCPServer):
    """Answers requests with what it is told to, one after the other, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self, answers: Sequence[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0


class _Connection(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.connections += 1
        while self.server.answers and (request := self._read_request()):
            self.server.requests.append(request)
            answer = self.server.answers.pop(0)
            self.wfile.write(answer)
            if answer in CLOSED_AFTER:
                return
        self.rfile.read()  # until the other end is closed

    def _read_request(self) -> bytes:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            lines.append(line)
        (size,) = [
            int(each.split(b":")[1]) for each in lines if each.lower().startswith(b"content-length")
        ] or [0]
        return b"".join(lines) + b"\r\n" + self.rfile.read(size) if lines else b""


@contextmanager
def serving(*answers: bytes) -> Iterator[Server]:
    """Serve these answers, on as many connections as are asked for."""
    with Server(answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answer(body: bytes = BODY, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


@pytest.fixture
def session() -> Iterator[KeptSession]:
    with KeptSession() as opened, until_deadline(time.monotonic() + PATIENCE):
        yield opened


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What urllib3 was asked to send: what went the long way."""
    long: list[str] = []
    urlopen: Any = urllib3.HTTPConnectionPool.urlopen

    def noting(pool: Any, method: str, *args: Any, **options: Any) -> Any:
        long.append(method)
        return urlopen(pool, method, *args, **options)

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", noting)
    return long


def call(
    session: KeptSession,
    url: str,
    method: str = "GET",
    *,
    options: Mapping[str, Any] | None = None,
    **given: Any,
) -> requests.Response:
    """Call as the SDK does, over a connection that was in use a moment ago."""
    session.adapter.idle_since = time.monotonic()
    request = requests.Request(method, url, **given).prepare()
    settings = session.merge_environment_settings(request.url, {}, None, None, None)
    return session.send(request, **{"timeout": (5, 5), **settings, **(options or {})})


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("GET", {"params": b"dataHashes=1&dataHashes=2"}),
        ("POST", {"json": {"name": "Žluť"}}),
        ("PUT", {"data": BODY, "headers": {"X-Own": "ü", "user-agent": "somebody"}}),
        ("POST", {}),
    ],
    ids=str,
)
def test_the_server_is_sent_the_same(
    session: KeptSession, ways: list[str], method: str, given: dict[str, Any]
) -> None:
    with serving(answer(), answer(), answer()) as server:
        found = [call(session, f"{server.url}/v2/public/a b?c=d", method, **given) for _ in range(3)]
    assert ways == [method]
    assert server.connections == 1
    assert [each.json() for each in found] == [json.loads(BODY)] * 3
    long, *short = map(_in_order, server.requests)
    # urllib3 adds a name of its own where there is none.
    assert short == [[line for line in long if b"python-urllib3" not in line]] * 2


def _in_order(request: bytes) -> list[bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    return [first, *sorted(headers), body]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
COMPRESSED = answer(gzip.compress(b"[1,2]"), "Content-Encoding: gzip")
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[1,2]"
ANNOUNCED = answer(b"[1,2]", "Connection: close")  # and open until the other end closes it
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"[1,2]")
NONE, CUT_OFF = b"...", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n..."
CLOSED_AFTER = UNTIL_CLOSED, NONE, CUT_OFF


@pytest.mark.parametrize(
    "unusual", [CHUNKED, COMPRESSED, UNTIL_CLOSED, ANNOUNCED, CONTINUED], ids=lambda each: each[:60]
)
def test_answers_that_are_not_as_usual_are_read_all_the_same(session: KeptSession, unusual: bytes) -> None:
    with serving(answer(), unusual, answer(b"[3]")) as server:
        found = [call(session, server.url).json() for _ in range(3)]
    assert found[1:] == [[1, 2], [3]]
    assert server.connections == 1 + (b"Connection: close" in unusual)


def test_what_the_server_says_of_its_answer_is_told(session: KeptSession) -> None:
    with serving(answer(), answer(b"no", "Retry-After: 7", status="429 Too Many")) as server:
        _, refused = call(session, server.url), call(session, server.url)
    assert (refused.status_code, refused.reason, refused.text) == (429, "Too Many", "no")
    assert refused.headers["retry-after"] == "7"
    assert refused.url == f"{server.url}/"
    assert refused.encoding == "utf-8"


def test_where_it_leads_elsewhere_it_is_followed(session: KeptSession) -> None:
    with serving(answer(), answer(b"", "Location: /there", status="307 Moved"), answer(b"[1]")) as server:
        call(session, server.url)
        followed = call(session, server.url, "POST", data=b"what")
    assert followed.json() == [1]
    assert [each.status_code for each in followed.history] == [307]
    assert server.requests[-1].startswith(b"POST /there ")
    assert server.requests[-1].endswith(b"what")


@pytest.mark.parametrize("broken", [NONE, CUT_OFF], ids=str)
def test_an_answer_that_is_none_is_an_error_of_requests(session: KeptSession, broken: bytes) -> None:
    with serving(answer(), broken) as server:
        call(session, server.url)
        with pytest.raises(requests.ConnectionError):
            call(session, server.url)
    assert not session.is_clean


def test_one_that_does_not_come_is_a_timeout_of_requests(session: KeptSession) -> None:
    with serving(answer(), b"HTTP/1.1") as server:
        call(session, server.url)
        with pytest.raises(requests.ReadTimeout):
            call(session, server.url, options={"timeout": (5, 0.05)})
    assert not session.is_clean


@pytest.mark.parametrize(
    "options",
    [{"stream": True}, {"timeout": None}, {"timeout": 5.0}, {"proxies": {"http": "http://127.0.0.1:1"}}],
    ids=str,
)
def test_what_is_asked_for_besides_goes_the_long_way(
    session: KeptSession, ways: list[str], options: dict[str, Any]
) -> None:
    with serving(answer(), answer()) as server, suppress(requests.exceptions.ProxyError):  # nobody is there
        call(session, server.url)
        call(session, server.url, options=options)
    assert len(ways) == 2


@pytest.mark.parametrize("body", [b"long" * 300_000, io.BytesIO(b"not at hand")], ids=["long", "not at hand"])
def test_bodies_that_are_not_as_usual_go_the_long_way(
    session: KeptSession, ways: list[str], body: bytes | io.BytesIO
) -> None:
    sent = body.getvalue() if isinstance(body, io.BytesIO) else body
    with serving(answer(), answer()) as server:
        call(session, server.url)
        call(session, server.url, "POST", data=body)
    assert ways == ["GET", "POST"]
    assert server.requests[-1].endswith(sent)


def test_headers_may_be_bytes(session: KeptSession) -> None:
    with serving(answer(), answer()) as server:
        for _ in range(2):
            call(session, server.url, headers={b"X-Own": b"\xe4"})
    assert all(b"\r\nX-Own: \xe4\r\n" in each for each in server.requests)


def test_a_connection_is_for_those_who_trust_the_same(session: KeptSession, ways: list[str]) -> None:
    with serving(answer(), answer()) as server:
        call(session, server.url)
        call(session, server.url, options={"verify": False})
    assert len(ways) == 2
