"""A real HTTP server on loopback that serves media, and enough of Encord's storage API to renew a signed URL."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from encord.configs import BearerConfig
from encord.http.v2.api_client import ApiClient
from encord.http.v2.payloads import Page
from encord.orm import storage as orm
from encord.storage import StorageItem

from celery_agents.sandbox import SandboxServer
from celery_agents.sandbox.seed import seed_project
from celery_agents.sandbox.state import Sandbox
from celery_agents.sandbox.storage import Kind
from tests.execution.conftest import Bench, open_bench

SECRET = "X-Signature=s3cr3t"


@dataclass
class Reply:
    """One answer of the server. ``length`` is what it claims as Content-Length, if not the truth."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    #: Written in place of a body until the client goes away.
    drip: bytes = b""


class MediaServer(ThreadingHTTPServer):
    """Answers each path with its replies in turn, the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: dict[str, list[Reply]] = {}
        self.items: dict[str, orm.StorageItem] = {}
        self.children: dict[str, list[orm.StorageItem]] = {}
        #: Path and query of every request, in order.
        self.seen: list[str] = []
        #: The Accept-Encoding of every request.
        self.accepted: list[str] = []
        #: The Authorization of every request, None where it had none.
        self.authorized: list[str | None] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reply(self, path: str) -> Reply:
        if path.startswith("/v2/public/"):
            return Reply(self._storage_api(path).encode(), headers={"Content-Type": "application/json"})
        replies = self.replies[path]
        return replies.pop(0) if len(replies) > 1 else replies[0]

    def _storage_api(self, path: str) -> str:
        parts = path.split("/")
        if parts[-1] == "child-items":
            return str(Page[orm.StorageItem](results=self.children[parts[-2]]).model_dump_json(by_alias=True))
        item = self.items[parts[-1]]
        renewed = item.model_copy(update={"signed_url": f"{item.signed_url}&renewed=1"})
        return str(renewed.model_dump_json(by_alias=True))


class _Handler(BaseHTTPRequestHandler):
    server: MediaServer

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        self.server.accepted.append(self.headers["Accept-Encoding"])
        self.server.authorized.append(self.headers["Authorization"])
        reply = self.server.reply(urlsplit(self.path).path)
        self.send_response(reply.status)
        headers = {"Content-Length": str(len(reply.body) if reply.length is None else reply.length)}
        for name, value in (headers | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)
        self._drip(reply.drip)

    def _drip(self, drip: bytes) -> None:
        try:
            while drip and not self.server.closing.wait(0.005):
                self.wfile.write(drip)
        except OSError:
            pass  # the client has had enough, which is what the test is about

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@pytest.fixture
def server() -> Iterator[MediaServer]:
    with MediaServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def images() -> Iterator[Bench]:
    """A sandbox project of ten images."""
    state = Sandbox(seed=7)
    seed_project(state, tasks=10, seed=7, weights={Kind.IMAGE: 1})
    with SandboxServer.start(state) as sandbox:
        yield open_bench(sandbox)


MakeItem = Callable[..., StorageItem]


@pytest.fixture
def make_item(server: MediaServer) -> MakeItem:
    """Make real storage items of the SDK's, whose files are what ``replies`` say."""
    client = ApiClient(BearerConfig("token", domain=server.url))

    def make(kind: str, *replies: Reply | bytes, **fields: Any) -> StorageItem:
        item_uuid = uuid.uuid4()
        path = f"/media/{item_uuid}"
        if replies:
            server.replies[path] = [Reply(each) if isinstance(each, bytes) else each for each in replies]
            fields.setdefault("signed_url", f"{server.url}{path}?{SECRET}")
        item = orm.StorageItem.model_validate(_blank(item_uuid, kind) | fields)
        server.items[str(item_uuid)] = item
        return StorageItem(client, item)

    return make


def _blank(item_uuid: uuid.UUID, kind: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    fields: dict[str, Any] = dict.fromkeys(orm.StorageItem.model_fields)
    return fields | {
        "uuid": item_uuid,
        "parent": uuid.uuid4(),
        "item_type": kind,
        "name": "untitled",
        "description": "",
        "client_metadata": "{}",
        "owner": "someone@example.com",
        "created_at": now,
        "last_edited_at": now,
        "is_tombstone": False,
        "is_placeholder": False,
        "backed_data_units_count": 1,
        "storage_location": "encord",
    }
