"""Redis forgets everything in mid-run: messages, results, claims, outcomes. Encord still knows what is to be done."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.faults import encord_in_trouble
from tests.chaos.servers import Servers
from tests.chaos.supervisor import Supervisor, survive
from tests.chaos.verdict import complaints, told_by_encord
from tests.worker.conftest import ROOT, Site, wait_until

TASKS, BATCH = 200, 20
PATIENCE = 120.0

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="pool processes are found in /proc"),
    pytest.mark.app_module("tests.chaos.app"),
    pytest.mark.slow,
    pytest.mark.tasks(TASKS),
    pytest.mark.visibility_timeout(3),
    pytest.mark.environment(
        SAVES="1", SECONDS_PER_TASK="0.05", STAGE='{"commit_every": 5, "retry_backoff_max": 2}'
    ),
]


def sweep() -> None:
    """Enqueue what waits at the stage, as another machine would."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "tests.chaos.app",
        "agents",
        "enqueue",
        "--batch-size",
        str(BATCH),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_the_next_sweep_finds_what_is_still_to_be_done(site: Site, servers: Servers) -> None:
    sweep()
    site.sandbox.faults.add(*encord_in_trouble())
    supervisor = Supervisor(site)
    moves = site.sandbox.audit.moves
    wait_until("some are moved", lambda: len(moves()) >= TASKS // 5)
    servers.valkey.client().flushall()
    assert len(moves()) < TASKS
    site.sandbox.faults.clear()
    sweep()
    site.sandbox.faults.add(*encord_in_trouble())
    survive(supervisor, lambda: len(moves()) == TASKS, PATIENCE)
    assert not complaints(told_by_encord(site.sandbox, TASKS))
    wait_until("nobody works any more", lambda: not servers.valkey.client().exists("unacked"))
    assert not complaints(told_by_encord(site.sandbox, TASKS))
