"""Have contestants do the same agent tasks in turns, each with a worker of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import trees
from benchmarks.contestants import Conditions, Contestant
from benchmarks.places import Place, places, started

#: Agent tasks that a worker does before anything is measured, in messages of one.
WARM_UP = 8


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one contestant needed in one round."""

    tasks: int
    seconds: float
    cpu: float  #: seconds, of the worker and its processes
    memory: int  #: bytes, of the same, at most
    calls: int  #: to Encord
    connections: int  #: to Encord

    @property
    def throughput(self) -> float:
        """Agent tasks a second."""
        return self.tasks / self.seconds


class Entrant:
    """A contestant whose worker is up."""

    def __init__(self, place: Place, worker: int) -> None:
        self.contestant = place.contestant
        self.place = place
        self.worker = worker

    def warm_up(self) -> None:
        """Have a few agent tasks done, so that all processes are up and know the project."""
        self.place.fill(WARM_UP)
        self.place.sender.ask("send", size=1)

    def run(self, tasks: int, size: int) -> Run:
        """Have so many new agent tasks done, in messages of *size*."""
        tasks = self.place.fill(tasks)
        self.place.encord.reset()
        used = trees.cpu(self.worker)
        with trees.watched(self.worker) as peak:
            seconds = self.place.sender.ask("send", size=size)
            used = trees.cpu(self.worker) - used
        calls, connections = self.place.encord.counted()
        return Run(
            tasks=tasks,
            seconds=seconds,
            cpu=used,
            memory=peak.memory,
            calls=calls,
            connections=connections,
        )

    def check(self) -> None:
        """Raise RuntimeError where something is left that was to be moved."""
        if self.contestant.moves and (left := self.place.left()):
            raise RuntimeError(f"{self.contestant.name} left {left} agent tasks at their stage")


def compete(
    contestants: Sequence[Contestant],
    conditions: Conditions,
    rounds: int,
    *,
    tasks: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Run]]:
    """Yield what each needed, round by round; who begins changes with each.

    Args:
        contestants: Who, by names that differ.
        conditions: Under what.
        rounds: How often each runs.
        tasks: Agent tasks in each run, instead of each contestant's own number.
        env: What the contestants find in the environment besides.

    Raises:
        RuntimeError: A worker or what sends to it has ended, or some agent task was not moved.
    """
    with ExitStack() as stack:
        entrants = list(entered(contestants, conditions, stack, env or {}))
        for number in range(rounds):
            in_order = entrants if number % 2 else entrants[::-1]
            yield {entrant.contestant.name: _turn(entrant, conditions, tasks) for entrant in in_order}
        for entrant in entrants:
            entrant.check()


def _turn(entrant: Entrant, conditions: Conditions, tasks: int | None) -> Run:
    tasks = tasks or entrant.contestant.tasks(conditions)
    return entrant.run(tasks, entrant.contestant.message_size(tasks, conditions.slots))


def entered(
    contestants: Sequence[Contestant], conditions: Conditions, stack: ExitStack, env: Mapping[str, str]
) -> Iterator[Entrant]:
    """Start everything; it is stopped with *stack*."""
    for place in places(contestants, conditions, stack, env):
        worker = stack.enter_context(started(place, conditions))
        entrant = Entrant(place, worker.pid)
        entrant.warm_up()
        yield entrant
