"""A sandbox that the environment points to, and what it knows of its project."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_agents.sandbox import Project, SandboxServer

STAGE = "Pre-label"
FORWARD = "labelled"
DONE = "Route"


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark that ``sandbox`` reads."""
    config.addinivalue_line("markers", "sandbox(**settings): how the sandbox is made")


@pytest.fixture
def sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """The default project with a dozen data units; ``@pytest.mark.sandbox(tasks=…)`` asks for another."""
    marker = request.node.get_closest_marker("sandbox")
    with SandboxServer.start(**({"tasks": 12, "seed": 3} | (marker.kwargs if marker else {}))) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def project(sandbox: SandboxServer) -> Project:
    """The sandbox's side of the project."""
    return sandbox.state.project(sandbox.project_hash)
