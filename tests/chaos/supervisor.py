"""Keeps workers going, as systemd or Kubernetes would, and kills them now and then."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.worker.conftest import Site

#: Processes in each worker.
PROCESSES = 2


class Supervisor:
    """Two workers of two processes. The seed says who is killed; when in the course of the work, nobody can say.

    Args:
        site: Where the workers run.
        seed: Of the dice.
        every: Seconds between two kills.
        kills: How many there are at most.
    """

    def __init__(self, site: Site, *, seed: int = 0, every: float = 2.0, kills: int = 0) -> None:
        self._site = site
        self._dice = random.Random(seed)
        self._every = every
        self._most = kills
        self._due = time.monotonic() + every
        self.kills = 0
        self.killed: set[int] = set()  #: pool processes that were killed, or left without their worker
        self.workers = [self._start(), self._start()]

    def _start(self) -> subprocess.Popen[bytes]:
        return start_worker(self._site, processes=PROCESSES)

    def tick(self) -> None:
        """Start what died anew, and kill if it is time to."""
        self.workers = [worker if worker.poll() is None else self._start() for worker in self.workers]
        if self.kills < self._most and time.monotonic() >= self._due:
            self._kill(self._dice.choice(self.workers))
            self._due = time.monotonic() + self._every

    def _kill(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill one process of the pool, or the worker with it, or the worker alone: its pool then works on for a while."""
        pool = pool_of(worker)
        if pool:
            kill = self._dice.choices((self._kill_one, kill_all, kill_head), weights=(6, 3, 1))[0]
            if kill == self._kill_one and not self._is_ready(worker):
                kill = kill_all  # Celery takes half a minute to give up a worker whose pool does not come up
            self.killed |= set(kill(worker, pool))
            self.kills += 1

    def _is_ready(self, worker: subprocess.Popen[bytes]) -> bool:
        return " ready." in self._site.log(self._site.workers.index(worker)).read_text()

    def _kill_one(self, worker: subprocess.Popen[bytes], pool: list[int]) -> list[int]:
        one = self._dice.choice(pool)
        os.kill(one, signal.SIGKILL)
        return [one]


def start_worker(site: Site, *, processes: int) -> subprocess.Popen[bytes]:
    """Start a worker and do not wait for it; its name is its own, also where others use the same RabbitMQ."""
    name = f"worker{len(site.workers)}@{site.app.conf.task_default_queue}"
    return site.start_worker("-c", str(processes), "-n", name, is_up=False)


def kill_all(worker: subprocess.Popen[bytes], pool: list[int]) -> list[int]:
    """Kill a whole worker."""
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    return pool


def kill_head(worker: subprocess.Popen[bytes], pool: list[int]) -> list[int]:
    """Kill a worker and leave its pool alive: each process ends when it finds that nobody listens."""
    worker.kill()
    worker.wait()
    return pool


def pool_of(worker: subprocess.Popen[bytes]) -> list[int]:
    """Return the process ids of a worker's pool; none while it starts."""
    with suppress(FileNotFoundError):
        return [
            int(each) for each in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        ]
    return []


def survive(supervisor: Supervisor, is_over: Callable[[], bool], patience: float) -> float:
    """Keep the workers going until *is_over*; return after how many seconds that was.

    Raises:
        AssertionError: It is not over after *patience* seconds.
    """
    began = time.monotonic()
    while not is_over():
        supervisor.tick()
        assert time.monotonic() - began < patience, (
            f"not over after {patience:.0f} s and {supervisor.kills} kills"
        )
        time.sleep(0.1)
    return time.monotonic() - began
