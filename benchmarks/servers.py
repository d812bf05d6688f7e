"""Start what all contestants share: a sandbox in a process of its own, and a Valkey server.

    python -m benchmarks.servers LATENCY CONNECT_LATENCY TLS PROJECTS

is the sandbox's process. It has so many projects of images only, empty at first, so that contestants that run in turns
do not see each other's agent tasks, and the longest run does not slow the next one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.conversation import Companion, answer, companion

ROOT = Path(__file__).parents[1]
STAGE = "Pre-label"
#: Agent tasks in a page of a listing: what is listed before the clock starts should take no time.
PAGE = 1000


@dataclass(frozen=True)
class Encord:
    """A sandbox in another process, and the environment in which the SDK finds it."""

    process: Companion
    env: dict[str, str]
    projects: tuple[str, ...]  #: their hashes

    def add(self, project_hash: str, tasks: int) -> None:
        """Let so many new agent tasks wait at the stage."""
        self.process.ask("add", project_hash=project_hash, tasks=tasks)

    def reset(self) -> None:
        """Count calls and connections from zero."""
        self.process.ask("reset")

    def counted(self) -> tuple[int, int]:
        """Return how many calls and connections there were."""
        calls, connections = self.process.ask("counted")
        return calls, connections

    def left(self, project_hash: str) -> int:
        """Return how many agent tasks are still at the stage."""
        return int(self.process.ask("left", project_hash=project_hash))


@contextmanager
def encord(
    latency: float = 0.0, connect_latency: float = 0.0, *, tls: bool = False, projects: int = 1
) -> Iterator[Encord]:
    """Serve projects that are empty at first.

    Args:
        latency: Seconds that each call takes longer.
        connect_latency: Seconds that each new connection takes.
        tls: Whether to serve HTTPS; the environment makes clients trust the certificate.
        projects: How many.
    """
    arguments = [str(latency), str(connect_latency), str(int(tls)), str(projects)]
    command = [sys.executable, "-m", "benchmarks.servers", *arguments]
    with (
        tempfile.TemporaryDirectory() as folder,
        companion(command, os.environ | {"PYTHONPATH": str(ROOT)}) as process,
    ):
        facts: dict[str, Any] = process.ask("facts")
        key = Path(folder) / "key"
        key.touch(mode=0o600)
        key.write_text(facts["key"], encoding="ascii")
        env = {"ENCORD_DOMAIN": facts["url"], "ENCORD_SSH_KEY_FILE": str(key)}
        if tls:
            trusted = Path(folder) / "ca.pem"
            trusted.write_text(facts["certificate"], encoding="ascii")
            env["REQUESTS_CA_BUNDLE"] = str(trusted)
        yield Encord(process, env, tuple(facts["projects"]))


def serve(latency: float, connect_latency: float, *, tls: bool, projects: int) -> None:
    """Answer for the sandbox of this process until the other end is closed."""
    from celery_agents.sandbox import Fault, Kind, Sandbox, SandboxServer, seed_project

    state = Sandbox(page_size=PAGE)
    for _ in range(projects):
        seed_project(state, tasks=0, seed=0)
    datasets = dict(zip(state.projects, state.datasets.values(), strict=True))
    faults = (Fault(latency=latency),) if latency else ()
    with SandboxServer.start(state, faults=faults, connect_latency=connect_latency, tls=tls) as server:
        answer(
            {
                "facts": lambda: {
                    "url": server.url,
                    "key": server.private_key,
                    "certificate": server.certificate,
                    "projects": list(state.projects),
                },
                "add": lambda project_hash, tasks: len(
                    state.add_data_units(datasets[project_hash], [Kind.IMAGE] * tasks)
                ),
                "reset": server.counters.reset,
                "counted": lambda: (server.counters.calls.total(), server.connections),
                "left": lambda project_hash: state.projects[project_hash].count_at(STAGE),
            }
        )


if __name__ == "__main__":
    serve(float(sys.argv[1]), float(sys.argv[2]), tls=sys.argv[3] == "1", projects=int(sys.argv[4]))
