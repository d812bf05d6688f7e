"""What keeping connections to Encord saves: the calls of a message of one spec, with and without, in turns.

    python benchmarks/connections.py [--messages 20] [--rounds 5]

An agent that saves labels makes four calls for one spec: list its label row, read its labels, save them, set its
priority (here instead of the move, which can be made only once). The server is a sandbox in a process of its own. Its
latency stands for the way to Encord and back; a new connection takes two of them where it is encrypted (TCP and
TLS 1.3), and one where it is not. CPU time is that of the client alone.
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
from uuid import UUID

import requests
from encord.user_client import EncordUserClient

from celery_agents.gateway.project import Gateway
from celery_agents.sandbox import Fault, SandboxServer

CALLS = 4


@dataclass(frozen=True)
class Cost:
    """Of one message: seconds on the clock, seconds of CPU, connections."""

    clock: float
    cpu: float
    connections: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=20, help="in each run")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for latency in (0.0, 0.02):
        for tls in (False, True):
            with sandbox(latency, latency * (1 + tls), tls=tls) as server:
                measure(server, f"{latency * 1000:.0f} ms, {'TLS' if tls else 'plain'}", options)


def measure(server: dict[str, str], name: str, options: argparse.Namespace) -> None:
    client = EncordUserClient.create_with_ssh_private_key(server["key"], domain=server["url"])
    gateways = {
        keep: Gateway(UUID(server["project_hash"]), client, keep_connections=keep) for keep in (True, False)
    }
    costs: dict[bool, list[Cost]] = {True: [], False: []}
    for number in range(options.rounds + 1):
        for keep in (True, False) if number % 2 else (False, True):
            cost = run(gateways[keep], options.messages, server["url"])
            if number:  # the first warms up
                costs[keep].append(cost)
    tell(name, costs[True], costs[False])


def run(gateway: Gateway, messages: int, url: str) -> Cost:
    project = gateway.project
    data_hash = next(iter(project.list_label_rows_v2())).data_hash
    requests.post(f"{url}/sandbox/reset-counters", timeout=10).raise_for_status()
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(messages):
        (row,) = project.list_label_rows_v2(data_hashes=[data_hash])
        gateway.initialise([row], {})
        row.save()
        row.set_priority(0.5)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    report = requests.get(f"{url}/sandbox/report", timeout=10).json()
    assert sum(report["calls"].values()) == CALLS * messages, report["calls"]
    # Without the one that asked for the report.
    return Cost(clock / messages, cpu / messages, (report["connections"] - 1) / messages)


def tell(name: str, kept: list[Cost], new: list[Cost]) -> None:
    clock = [before.clock / after.clock for before, after in zip(new, kept, strict=True)]
    cpu = [before.cpu / after.cpu for before, after in zip(new, kept, strict=True)]
    print(
        f"{name:12} a message {median(new, 'clock'):5.1f} -> {median(kept, 'clock'):5.1f} ms: {spread(clock)}; "
        f"CPU {median(new, 'cpu'):4.1f} -> {median(kept, 'cpu'):4.1f} ms: {spread(cpu)}; "
        f"connections {new[0].connections:.2f} -> {kept[-1].connections:.2f}"
    )


def median(costs: list[Cost], what: str) -> float:
    return 1000 * float(statistics.median(getattr(cost, what) for cost in costs))


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


@contextmanager
def sandbox(latency: float, connecting: float, *, tls: bool) -> Iterator[dict[str, str]]:
    """Serve in another process; trust its certificate in this one."""
    command = [sys.executable, __file__, "serve", str(latency), str(connecting), str(int(tls))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        try:
            ready: dict[str, Any] = json.loads(process.stdout.readline())
            if tls:
                trusted = Path(folder) / "ca.pem"
                trusted.write_text(ready["certificate"], encoding="ascii")
                os.environ["REQUESTS_CA_BUNDLE"] = str(trusted)
            yield ready
        finally:
            os.environ.pop("REQUESTS_CA_BUNDLE", None)
            process.stdin.close()
            process.wait()


def serve(latency: str, connecting: str, tls: str) -> None:
    faults = (Fault(latency=float(latency)),) if float(latency) else ()
    with SandboxServer.start(
        tasks=1, faults=faults, connect_latency=float(connecting), tls=tls == "1"
    ) as server:
        facts = {"url": server.url, "key": server.private_key, "project_hash": server.project_hash}
        print(json.dumps(facts | {"certificate": server.certificate}), flush=True)
        sys.stdin.read()  # until the other end is closed


if __name__ == "__main__":
    serve(*sys.argv[2:]) if sys.argv[1:2] == ["serve"] else main()
