"""A site for the tests of a whole module: one sandbox, one app, and workers that its tests share."""

from __future__ import annotations

import importlib
import os
import sys
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from kombu.exceptions import OperationalError

from celery_agents.messages import TaskSpec
from celery_agents.sandbox import SandboxServer
from tests import servers
from tests.worker.conftest import Site


@dataclass
class OrderedSite(Site):
    """A site whose agents do as they are ordered, see ``ordered_app``."""

    unused: list[str] = field(default_factory=list)  #: specs of agent tasks that no test has taken

    def take(self, order: str = "proceed") -> str:
        """Return the spec of an agent task of the test's own, with which its agent does as ordered."""
        spec = self.unused.pop()
        (self.orders / str(uuid_of(spec))).write_text(order)
        return spec

    @property
    def orders(self) -> Path:
        return Path(self.env["ORDERS"])

    def let_go_on(self) -> None:
        (self.orders / "go on").touch()

    def hold_back(self) -> None:
        (self.orders / "go on").unlink(missing_ok=True)

    def runs_of(self, spec: str) -> list[int]:
        """Return in which processes the agent has run for an agent task."""
        path = self.orders / "runs"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(str(uuid_of(spec)))]

    def listeners(self) -> int:
        assert self.runner.ledger is not None
        return self.runner.ledger.listeners(self.module.pre_label.queue_name)

    def claims_on(self, spec: str) -> int:
        """Return how many claims there are on an agent task: none or one."""
        assert self.runner.ledger is not None
        return len(self.runner.ledger.who_holds(self.module.pre_label.agent_stage.uuid, [uuid_of(spec)]))


def uuid_of(spec: str) -> UUID:
    return TaskSpec.decode(spec).uuid


@contextmanager
def opened(broker: str, backend: str, folder: Path, *, tasks: int = 40, **env: str) -> Iterator[OrderedSite]:
    """Open a site; *env* is for the app and its workers."""
    seed = zlib.crc32(f"{folder} {uuid.uuid4()}".encode())
    with SandboxServer.start(tasks=tasks, seed=seed) as sandbox, pytest.MonkeyPatch.context() as patch:
        (folder / "orders").mkdir()
        full = sandbox.env() | {
            "BROKER_URL": broker,
            "RESULT_BACKEND": backend,
            "QUEUE": f"q-{uuid.uuid4()}",
            "ORDERS": str(folder / "orders"),
            "TEST_PID": str(os.getpid()),
            **env,
        }
        for name, value in full.items():
            patch.setenv(name, value)
        sys.modules.pop("tests.policies.ordered_app", None)  # it reads the environment when it is imported
        site = OrderedSite(importlib.import_module("tests.policies.ordered_app"), sandbox, full, folder)
        site.unused = site.specs()
        try:
            yield site
        finally:
            site.stop()
            with suppress(OSError, OperationalError):  # a test may have stopped the broker
                servers.delete_queue(site.app)
            site.app.close()


@pytest.fixture
def site(shared: OrderedSite) -> Iterator[OrderedSite]:
    """What a module's tests share, with its agents held back, and let go on after each test."""
    shared.hold_back()
    yield shared
    shared.let_go_on()
