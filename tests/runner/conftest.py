"""A sandbox that the environment points to, as a user's shell would."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery

from celery_agents.sandbox import SandboxServer


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=10, seed=3) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def app() -> Celery:
    """An app of the test's own. Nothing is sent: its broker is in memory."""
    return Celery("app", broker="memory://", backend="cache+memory://", set_as_current=False)
