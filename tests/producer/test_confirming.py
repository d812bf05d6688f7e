"""RabbitMQ confirms a flush at once, where it is asked to confirm."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from celery import Celery
from kombu import Exchange, Queue, pools

from celery_agents.errors import SetupError
from celery_agents.producer import confirming
from celery_agents.producer.sweeping import sweep
from tests.producer.conftest import Listing, stage_task


@pytest.fixture
def confirming_app(rabbit_app: Celery) -> Iterator[Celery]:
    rabbit_app.conf.broker_transport_options = {"confirm_publish": True}
    yield rabbit_app
    rabbit_app.conf.broker_transport_options = {}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each message that was waited for by itself."""
    pools.reset()  # a channel keeps the method that it had when it was made
    waited: list[int] = []
    original = amqp.Channel.basic_publish_confirm

    def note(channel: Any, *args: Any, **options: Any) -> Any:
        waited.append(1)
        return original(channel, *args, **options)

    monkeypatch.setattr(amqp.Channel, "basic_publish_confirm", note)
    yield waited
    pools.reset()


def number_in_queue(app: Celery) -> int:
    with app.connection_for_read() as connection:
        declared = connection.default_channel.queue_declare(app.conf.task_default_queue, passive=True)
        return int(declared.message_count)


def test_a_flush_is_waited_for_once(confirming_app: Celery, waits: list[int]) -> None:
    task = stage_task(confirming_app, Listing(60))

    for swept in (1, 2):
        assert len(sweep([task], batch_size=1)) == 60
        # The first message is a flush of its own, so that workers have something to do.
        assert len(waits) == 2 * swept
        assert number_in_queue(confirming_app) == 60 * swept

    task.delay("{}")
    assert len(waits) == 5


def test_a_flush_that_breaks_off_leaves_the_channel_as_it_was(
    confirming_app: Celery, waits: list[int]
) -> None:
    task = stage_task(confirming_app, Listing(60))
    original, sent = task.apply_async, []

    def break_off(*args: Any, **options: Any) -> Any:
        sent.append(original(*args, **options))
        if len(sent) == 30:
            raise KeyboardInterrupt
        return sent[-1]

    task.apply_async = break_off  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        sweep([task], batch_size=1)
    assert number_in_queue(confirming_app) == 30

    assert len(sweep([task], batch_size=1, force=True)) == 60
    assert number_in_queue(confirming_app) == 90
    assert len(waits) == 4


def test_what_a_full_queue_refuses_is_told(confirming_app: Celery) -> None:
    limits = {"x-queue-type": "quorum", "x-max-length": 10, "x-overflow": "reject-publish"}
    name = f"{confirming_app.conf.task_default_queue}-full"
    full = Queue(name, Exchange(name, "topic"), name, queue_arguments=limits)
    task = stage_task(confirming_app, Listing(600))

    with pytest.raises(
        SetupError, match=r"cannot be used: it refused a message, as it does where a queue is full"
    ):
        sweep([task], queue=full)

    with confirming_app.connection_for_write() as connection:
        connection.default_channel.queue_delete(name)
        connection.default_channel.exchange_delete(name)


def test_a_channel_that_is_not_known_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def publish() -> None: ...

    channel = SimpleNamespace(basic_publish=publish)
    for _ in range(2):
        with confirming.confirmed_together(channel):
            assert channel.basic_publish is publish
    assert caplog.text.count("py-amqp is not what it was") == 1
