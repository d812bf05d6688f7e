"""How soon the batch of a killed worker is another's, and that a long one is nobody else's while its worker lives."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from celery_agents import AgentResult
from tests.chaos.supervisor import start_worker
from tests.chaos.verdict import complaints, runs_in, told_by_encord, told_by_results
from tests.worker.conftest import Site, wait_until

TASKS = 5

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="process groups are killed"),
    pytest.mark.app_module("tests.chaos.app"),
    pytest.mark.long,
    pytest.mark.tasks(TASKS),
]


def wait_patiently(site: Site, notes: Path, died: float) -> float:
    """Return the seconds from *died* until another process than the first runs something."""
    first = runs_in(notes)[0].process
    while all(run.process == first for run in runs_in(notes)):
        assert time.monotonic() - died < 120, site.log(1).read_text()
        time.sleep(0.05)
    return time.monotonic() - died


@pytest.mark.environment(SECONDS_PER_TASK="3")
@pytest.mark.parametrize(
    ("servers", "at_most"),
    [
        pytest.param("redis", 75, id="Redis with the default settings"),
        pytest.param("redis", 15, marks=pytest.mark.visibility_timeout(10), id="Redis with ten seconds"),
        pytest.param("shared rabbitmq", 15, id="RabbitMQ"),
    ],
    indirect=["servers"],
)
def test_a_killed_workers_batch_is_taken_up(notes: Path, site: Site, at_most: float) -> None:
    killed = start_worker(site, processes=1)
    result = AgentResult(site.module.pre_label.delay(site.specs()).id, site.app)
    wait_until("it has begun", lambda: runs_in(notes))
    start_worker(site, processes=1)
    wait_until("the other is ready", lambda: " ready." in site.log(1).read_text())
    os.killpg(killed.pid, signal.SIGKILL)
    seconds = wait_patiently(site, notes, time.monotonic())
    sys.stdout.write(f"taken up after {seconds:.1f} s\n")
    assert seconds < at_most
    result.wait(timeout=60)
    assert complaints(told_by_encord(site.sandbox, TASKS), told_by_results(result.outcomes, TASKS)) == []


@pytest.mark.tasks(1)
@pytest.mark.environment(SECONDS_PER_TASK="15")
@pytest.mark.visibility_timeout(3)
def test_a_task_of_five_times_the_visibility_timeout_runs_once(notes: Path, site: Site) -> None:
    for _ in range(2):
        start_worker(site, processes=1)
    result = AgentResult(site.module.pre_label.delay(site.specs()).id, site.app)
    result.wait(timeout=60)
    assert len(runs_in(notes)) == 1
    assert complaints(told_by_encord(site.sandbox, 1), told_by_results(result.outcomes, 1)) == []
