"""RabbitMQ confirms a flush at once, where it is asked to confirm."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp.exceptions import MessageNacked, RecoverableConnectionError
from celery import Celery
from kombu import Connection, Exchange, Queue, pools

from celery_agents.errors import SetupError
from celery_agents.producer import confirming
from celery_agents.producer.sweeping import sweep
from tests.producer.conftest import Listing, stage_task
from tests.servers import until
from tests.visibility.proxy import Proxy


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


@pytest.fixture
def opened(rabbit_app: Celery) -> Iterator[Channel]:
    """A channel that confirms, and that tests can disturb."""
    proxy = Proxy(5672)
    url = f"amqp://guest:guest@127.0.0.1:{proxy.port}//"
    connection = Connection(url, transport_options={"confirm_publish": True})
    yield Channel(proxy, connection.default_channel, rabbit_app.conf.task_default_queue)
    proxy.close()
    connection.collect()


@dataclass
class Channel:
    """One to RabbitMQ, through a proxy."""

    proxy: Proxy
    channel: Any
    queue: str

    def send(self, queue: str) -> None:
        self.channel.basic_publish(amqp.Message(b"{}"), routing_key=queue)

    def break_off(self, then: Callable[[], object]) -> None:
        """Send some messages, of which no confirmation but the first's is read, and break off."""
        with pytest.raises(KeyboardInterrupt):
            self._flush_until(then)

    def _flush_until(self, then: Callable[[], object]) -> None:
        with confirming.confirmed_together(self.channel):
            for _ in range(30):
                self.send(self.queue)
            then()
            raise KeyboardInterrupt

    def await_confirmations(self) -> None:
        """Wait until the broker has answered; nothing reads it."""
        readable, _, _ = select.select([self.channel.connection.transport.sock], [], [], 30)
        assert readable


def test_a_flush_that_breaks_off_leaves_the_next_message_no_confirmation_but_its_own(
    opened: Channel,
) -> None:
    limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
    full = opened.channel.queue_declare(exclusive=True, arguments=limits).queue
    opened.send(full)
    opened.break_off(opened.await_confirmations)
    with pytest.raises(MessageNacked):
        opened.send(full)


def test_what_breaks_a_flush_off_is_told_although_the_connection_is_lost_with_it(opened: Channel) -> None:
    opened.break_off(opened.proxy.drop)


def test_a_flush_that_breaks_off_does_not_wait_for_a_silent_broker(
    opened: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirming, "PATIENCE", 0.1)
    rescue = threading.Timer(20, opened.proxy.let_go)  # else who waits for ever would never fail
    rescue.start()
    opened.break_off(opened.proxy.hold)
    assert rescue.is_alive()
    rescue.cancel()


def test_what_a_silent_broker_confirms_late_is_of_no_message_that_is_sent_later(
    opened: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirming, "PATIENCE", 0.1)
    opened.break_off(opened.proxy.hold)
    opened.proxy.let_go()
    with pytest.raises(RecoverableConnectionError):
        opened.send(opened.queue)


def test_what_a_full_queue_refuses_is_told(confirming_app: Celery) -> None:
    limits = {"x-queue-type": "quorum", "x-max-length": 10, "x-overflow": "reject-publish"}
    name = f"{confirming_app.conf.task_default_queue}-full"
    full = Queue(name, Exchange(name, "topic"), name, queue_arguments=limits)
    task = stage_task(confirming_app, Listing(600))

    def is_refused() -> bool:
        try:
            sweep([task], queue=full, force=True)
        except SetupError as error:
            return "cannot be used: it refused a message, as it does where a queue is full" in str(error)
        return False

    until(is_refused, "the queue is full")  # RabbitMQ may notice later than after one sweep

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
