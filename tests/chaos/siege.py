"""The main scenario: workers are killed, Encord is in trouble, the broker is restarted, and all is done once."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from celery_agents import AgentGroupResult
from celery_agents.errors import SetupError
from tests.chaos.faults import encord_in_trouble, failed_saves
from tests.chaos.servers import Servers
from tests.chaos.supervisor import PROCESSES, Supervisor, survive
from tests.chaos.verdict import complaints, runs_in, told_by_encord, told_by_results, told_by_the_ledger
from tests.worker.conftest import Site

#: So often somebody is killed at least, however quick the others are.
LEAST_KILLS = 2
#: Says who is killed; another one: CHAOS_SEED=7 make chaos.
SEED = int(os.environ.get("CHAOS_SEED", "3"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Siege:
    """How much of it."""

    tasks: int
    batch: int
    commit_every: int = 10  #: agent tasks that are answered and not committed at most: what a crash repeats
    seconds_per_task: float
    every: float  #: seconds between two kills
    kills: int  #: at most
    visibility_timeout: float  #: on Redis; seconds
    patience: float  #: seconds after which what hangs is given up

    def marks(self) -> list[pytest.MarkDecorator]:
        """Return what ``site`` and ``environment`` of a test with this siege need to know."""
        return [
            pytest.mark.skipif(sys.platform != "linux", reason="pool processes are found in /proc"),
            pytest.mark.tasks(self.tasks),
            pytest.mark.visibility_timeout(self.visibility_timeout),
            pytest.mark.environment(
                SAVES="1",
                SECONDS_PER_TASK=str(self.seconds_per_task),
                STAGE=json.dumps({"commit_every": self.commit_every, "retry_backoff_max": 5}),
                # The supervisor kills whoever it meets, and some it meets three times.
                CONF=json.dumps({"agents_max_crashes": 1_000}),
            ),
        ]


SHORT = Siege(
    tasks=200, batch=20, seconds_per_task=0.02, every=1.2, kills=5, visibility_timeout=3, patience=150
)
LONG = Siege(
    tasks=2_000, batch=50, seconds_per_task=0.05, every=2, kills=10_000, visibility_timeout=10, patience=600
)
#: Batches of several windows, which overlap until somebody is killed.
WINDOWS = replace(LONG, tasks=4_000, batch=400, commit_every=150, seconds_per_task=0.02)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a siege."""

    complaints: list[str]  #: nothing, hopefully
    kills: int
    extra_runs: int
    allowed: int  #: how many extra runs there may be
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:.0f} s, {self.kills} kills, {self.extra_runs} extra runs of {self.allowed} allowed, "
            f"complaints: {self.complaints or 'none'}"
        )


def besiege(siege: Siege, site: Site, servers: Servers, notes: Path) -> Report:
    """Run the scenario and judge it."""
    _ = site.module.pre_label.agent_stage  # before the trouble begins
    group = site.runner.enqueue("Pre-label", batch_size=siege.batch)
    site.sandbox.faults.add(*encord_in_trouble())
    supervisor = Supervisor(site, seed=SEED, every=siege.every, kills=siege.kills)
    outage = Outage(site, servers, when_moved=siege.tasks // 4)
    seconds = survive(
        supervisor,
        lambda: supervisor.kills >= LEAST_KILLS and outage.is_over() and is_ready(group),
        siege.patience,
    )
    # What runs when the broker goes away is stopped, and counts as killed.
    crashes = len(supervisor.killed) + len(supervisor.workers) * PROCESSES
    return Report(
        complaints=complaints(
            told_by_encord(site.sandbox, siege.tasks),
            told_by_results(list(group.outcomes), siege.tasks),
            told_by_the_ledger(site, siege.tasks),
        ),
        kills=supervisor.kills,
        extra_runs=len(runs_in(notes)) - siege.tasks,
        allowed=(crashes + failed_saves(site.sandbox)) * siege.commit_every,
        seconds=seconds,
    )


class Outage:
    """Restarts the broker once, in the midst of the work, while the killing goes on."""

    def __init__(self, site: Site, servers: Servers, when_moved: int) -> None:
        self._sandbox = site.sandbox
        self._when_moved = when_moved
        self._restart = threading.Thread(target=servers.restart_broker)
        self._is_begun = False

    def is_over(self) -> bool:
        """Begin when it is time to; return whether the broker is back."""
        if not self._is_begun and len(self._sandbox.audit.moves()) >= self._when_moved:
            self._is_begun = True
            self._restart.start()
        return self._is_begun and not self._restart.is_alive()


def is_ready(group: AgentGroupResult) -> bool:
    """Whether all messages have ended; not while the results cannot be read."""
    try:
        return group.ready()
    except SetupError:
        return False
