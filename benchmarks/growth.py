"""Whether an agent task costs the same however many wait at its stage: producer and worker together."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import trees
from benchmarks.contest import Entrant, entered
from benchmarks.contestants import Conditions
from benchmarks.scenarios import ours
from benchmarks.tables import Row, spread

#: Specs in each message: as many as wait where few do.
SIZE = 100


@dataclass(frozen=True)
class Load:
    """How many agent tasks wait at the stage, and how often they are enqueued and done.

    The CPU of one sweep of a few is too little to be measured.
    """

    tasks: int
    times: int = 1


@dataclass(frozen=True)
class Cost:
    """What all that is ours needed."""

    cpu: float  #: seconds for each agent task
    memory: int  #: bytes, of producer and worker, at most


def growth(rounds: int) -> Row:
    """Return what each agent task costs with 100 at the stage and with 10,000."""
    return _row(Load(100, times=25), Load(10_000), rounds)


def growth_million(rounds: int) -> Row:
    """Return the same with 10,000 and with 1,000,000, which takes some minutes a round, and 2 GB for the sandbox."""
    return _row(Load(10_000, times=5), Load(1_000_000), rounds)


def _row(less: Load, more: Load, rounds: int) -> Row:
    pairs = [pair for _ in range(rounds) for pair in _pairs(less, more)]
    few, many = ([pair[number] for pair in pairs] for number in (0, 1))
    return Row(
        what=f"cost of each of {more.tasks:,} agent tasks at a stage, enqueued and done",
        peer=f"the same with {less.tasks:,}",
        theirs=f"{1000 * statistics.median(cost.cpu for cost in few):.3f} ms of CPU",
        ours=f"{1000 * statistics.median(cost.cpu for cost in many):.3f} ms of CPU",
        ratio=spread([more.cpu / less.cpu for less, more in pairs]),
        memory=f"{_most(few)} → {_most(many)} MB",
    )


def _pairs(less: Load, more: Load) -> Iterator[tuple[Cost, Cost]]:
    """Yield what both cost, *less* before *more* and after it; with a new sandbox, which keeps all that it ever had."""
    contestant = ours("nothing", (SIZE,) * 3, size=SIZE, batch_size=SIZE)
    with ExitStack() as stack:
        (entrant,) = entered([contestant], Conditions(), stack, {})
        _cost(entrant, Load(SIZE))  # the producer opens the project
        before, many, after = (_cost(entrant, load) for load in (less, more, less))
    yield from ((before, many), (after, many))


def _cost(entrant: Entrant, load: Load) -> Cost:
    used, producer = 0.0, entrant.place.sender.pid
    with trees.watched(entrant.worker) as worker_peak, trees.watched(producer) as producer_peak:
        for _ in range(load.times):
            entrant.place.wait(load.tasks)
            used -= trees.cpu(entrant.worker) + trees.cpu(producer)
            entrant.place.sender.ask("enqueue")
            used += trees.cpu(entrant.worker) + trees.cpu(producer)
    return Cost(used / (load.tasks * load.times), worker_peak.memory + producer_peak.memory)


def _most(costs: list[Cost]) -> str:
    return f"{max(cost.memory for cost in costs) / 2**20:.0f}"
