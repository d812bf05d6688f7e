"""Whether an agent task costs the same however many wait at its stage: producer and worker together."""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from benchmarks import trees
from benchmarks.contest import Entrant, entered
from benchmarks.contestants import Conditions
from benchmarks.scenarios import ours
from benchmarks.tables import Row, spread

FEW, MANY = 100, 10_000
#: How often a few are enqueued for each time that many are: the CPU of one such sweep is too little to be measured.
OFTEN = 50


def growth(rounds: int) -> Row:
    """Return the CPU of each agent task with few and with many at the stage, in messages of 100."""
    pace = (FEW,) * 3
    with ExitStack() as stack:
        (entrant,) = entered([ours("nothing", pace, size=FEW, batch_size=FEW)], Conditions(), stack, {})
        _cpu(entrant, FEW)  # the producer opens the project
        pairs = [(_cpu(entrant, FEW, OFTEN), _cpu(entrant, MANY)) for _ in range(rounds)]
    few, many = (statistics.median(each) for each in zip(*pairs, strict=True))
    return Row(
        what=f"cost of each of {MANY:,} agent tasks at a stage, enqueued and done",
        peer=f"the same with {FEW}",
        theirs=f"{1000 * few:.3f} ms of CPU",
        ours=f"{1000 * many:.3f} ms of CPU",
        ratio=spread([more / less for less, more in pairs]),
    )


def _cpu(entrant: Entrant, tasks: int, times: int = 1) -> float:
    """Return the seconds of CPU for each agent task, of everything that is ours."""
    used = 0.0
    for _ in range(times):
        entrant.place.wait(tasks)
        used -= _used(entrant)
        entrant.place.sender.ask("enqueue")
        used += _used(entrant)
    return used / (tasks * times)


def _used(entrant: Entrant) -> float:
    return trees.cpu(entrant.worker) + trees.cpu(entrant.place.sender.pid)
