"""What keeping connections to Encord saves: the calls of a message of one spec, with and without, in turns.

    python -m benchmarks.connections [--messages 20] [--rounds 5]

An agent that saves labels makes four calls for one spec: list its label row, read its labels, save them, set its
priority (here instead of the move, which can be made only once). The server is a sandbox in a process of its own. Its
latency stands for the way to Encord and back; a new connection takes two of them where it is encrypted (TCP and
TLS 1.3), and one where it is not. CPU time is that of the client alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from encord.user_client import EncordUserClient

from benchmarks import servers
from benchmarks.servers import Encord
from benchmarks.tables import spread
from celery_agents.gateway.project import Gateway

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
            with servers.encord(latency, latency * (1 + tls), tls=tls) as encord:
                encord.add(encord.projects[0], 1)
                measure(encord, f"{latency * 1000:.0f} ms, {'TLS' if tls else 'plain'}", options)


def measure(encord: Encord, name: str, options: argparse.Namespace) -> None:
    os.environ.pop("REQUESTS_CA_BUNDLE", None)  # of the sandbox before
    os.environ.update(encord.env)
    client = EncordUserClient.create_with_ssh_private_key(
        ssh_private_key_path=Path(encord.env["ENCORD_SSH_KEY_FILE"]), domain=encord.env["ENCORD_DOMAIN"]
    )
    gateways = {
        keep: Gateway(UUID(encord.projects[0]), client, keep_connections=keep) for keep in (True, False)
    }
    costs: dict[bool, list[Cost]] = {True: [], False: []}
    for number in range(options.rounds + 1):
        for keep in (True, False) if number % 2 else (False, True):
            cost = run(gateways[keep], options.messages, encord)
            if number:  # the first warms up
                costs[keep].append(cost)
    tell(name, costs[True], costs[False])


def run(gateway: Gateway, messages: int, encord: Encord) -> Cost:
    project = gateway.project
    data_hash = next(iter(project.list_label_rows_v2())).data_hash
    encord.reset()
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(messages):
        (row,) = project.list_label_rows_v2(data_hashes=[data_hash])
        gateway.initialise([row], {})
        row.save()
        row.set_priority(0.5)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    calls, connections = encord.counted()
    assert calls == CALLS * messages, calls
    return Cost(clock / messages, cpu / messages, connections / messages)


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


if __name__ == "__main__":
    main()
