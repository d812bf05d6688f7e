"""A sandbox, and the examples run on it as programs."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_agents.sandbox import Project, SandboxServer

ROOT = Path(__file__).parents[2]
UNITS = 40


@pytest.fixture
def sandbox(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    # A seed of its own: the ledger knows what became of the agent tasks of another, and Celery what a task stands for.
    seed = zlib.crc32(f"{request.node.nodeid} {os.getpid()}".encode())
    with SandboxServer.start(tasks=UNITS, seed=seed) as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        # What is imported reads the environment: each test has it anew.
        for module in [name for name in sys.modules if name.startswith("examples.other_queues")]:
            monkeypatch.delitem(sys.modules, module)
        yield server


@pytest.fixture
def project(sandbox: SandboxServer) -> Project:
    return sandbox.state.project(sandbox.project_hash)


def start(name: str, **env: str) -> subprocess.Popen[str]:
    """Start an example as its first lines say."""
    return subprocess.Popen(
        [sys.executable, "-m", f"examples.other_queues.{name}"],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_all_done(project: Project) -> None:
    """Everything has moved once, but for the PDFs, which stay."""
    left = project.tasks_at("Pre-label")
    assert {task.data_title[-4:] for task in left} == {".pdf"}
    assert sum(project.counts().values()) - len(left) == UNITS - len(left) > 0
    assert project.count_at("Route") > 0
    assert project.count_at("Archive") > 0


def moves_of(sandbox: SandboxServer) -> dict[str, Any]:
    """How often each agent task was moved, and how many moves were refused."""
    return {
        "each": set(sandbox.audit.moves().values()),
        "refused": len(sandbox.audit.records("tasks.actions", accepted=False)),
    }
