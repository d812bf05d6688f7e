"""Servers and workers for chaos: whatever a test kills, floods or restarts is its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.servers import Servers, lasting_valkey, rabbitmq_behind_a_proxy, rabbitmq_node, restart
from tests.worker.conftest import site

__all__ = ["site"]


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks that the fixtures below read."""
    config.addinivalue_line("markers", "environment(NAME=value): what tests.chaos.app reads")
    config.addinivalue_line("markers", "visibility_timeout(seconds): of the broker, where that is Redis")


@pytest.fixture(params=["redis"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    """Broker, result backend and ledger; on Redis all in one server, as it is where nothing is configured.

    As "rabbitmq" the broker is a node of the test's own, which takes seconds to start; as "shared rabbitmq" it is the
    system's, and what is restarted are the connections to it.
    """
    with ExitStack() as stack:
        valkey = stack.enter_context(lasting_valkey(tmp_path / "valkey"))
        redis = f"redis://127.0.0.1:{valkey.port}"
        if request.param == "redis":
            yield Servers(f"{redis}/0", f"{redis}/1", lambda: restart(valkey), valkey)
        elif request.param == "rabbitmq":
            node = stack.enter_context(rabbitmq_node(tmp_path / "rabbitmq"))
            yield Servers(node.url, f"{redis}/0", node.restart, valkey)
        else:
            proxy, url = stack.enter_context(rabbitmq_behind_a_proxy())
            yield Servers(url, f"{redis}/0", proxy.drop, valkey)


@pytest.fixture
def urls(servers: Servers) -> tuple[str, str]:
    return servers.broker, servers.backend


@pytest.fixture(autouse=True)
def environment(request: pytest.FixtureRequest, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what ``tests.chaos.app`` reads, before it is imported."""
    for marker in request.node.iter_markers("environment"):
        for name, value in marker.kwargs.items():
            monkeypatch.setenv(name, value)
    timeout = request.node.get_closest_marker("visibility_timeout")
    options: dict[str, Any] = {"visibility_timeout": timeout.args[0]} if timeout and servers.is_redis else {}
    monkeypatch.setenv("TRANSPORT", json.dumps(options))


@pytest.fixture
def notes(environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where agents write down what they run; asked for before ``site``."""
    file = tmp_path / "notes"
    monkeypatch.setenv("RUNS", str(file))
    return file
