"""Compare with the peers: `make bench`, or a selection, such as `python -m benchmarks --only frame --rounds 1`."""

from __future__ import annotations

import argparse
import os
import platform
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path

from benchmarks import growth, queries, starts, tables
from benchmarks.contestants import LATENCIES, Conditions
from benchmarks.duels import duel
from benchmarks.scenarios import SCENARIOS
from benchmarks.tables import Row

POOLS = {"prefork": 2, "threads": 16}
OTHERS: Mapping[str, Callable[[int], Row]] = {
    "import": starts.imports,
    "help": starts.command_line,
    "start": starts.first_result,
    "query": queries.remote_query,
    "redis-allocator": queries.beside_redis_allocator,
    "growth": growth.growth,
    "growth-million": growth.growth_million,
}
#: What takes so long, or so much memory, that it is measured where it is named only.
NAMED_ONLY = frozenset({"growth-million"})


def main(arguments: Sequence[str] | None = None) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no worker is left behind
    options = options_of(arguments)
    rows: list[Row] = []
    for measure in selected(options):
        rows.append(measure())
        tables.tell(rows[-1])
    tables.show(rows)
    if options.write:
        tables.write(options.write, tables.markdown(rows, about(options.rounds)))


def selected(options: argparse.Namespace) -> Iterator[Callable[[], Row]]:
    """Yield what to measure: what is usual, or every combination of what was named."""
    is_usual = not (options.latency or options.tls or options.plain or options.pool or options.all)
    env = {"PROFILE": str(options.profile)} if options.profile else {}
    for scenario in SCENARIOS:
        if not options.only or scenario.name in options.only:
            for each in scenario.usual if is_usual else _all(options):
                yield partial(duel, scenario, each, options.rounds, tasks=options.tasks, env=env)
    for name, measure in OTHERS.items():
        if name in options.only if options.only else is_usual and name not in NAMED_ONLY:
            yield partial(measure, options.rounds)


def _all(options: argparse.Namespace) -> Iterator[Conditions]:
    latencies = options.latency or LATENCIES
    kinds = [tls for tls, is_wanted in ((False, options.plain), (True, options.tls)) if is_wanted]
    pools = options.pool or list(POOLS if options.all else ["prefork"])
    for latency, tls, pool in product(latencies, kinds or ([False, True] if options.all else [False]), pools):
        yield Conditions(latency=latency, tls=tls, pool=pool, slots=POOLS[pool])


def about(rounds: int) -> str:
    """Return when and with what it was measured."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("celery", "encord", "celery-agents"))
    return (
        f"{datetime.now(UTC):%d %B %Y}; {os.cpu_count()} cores, Python {platform.python_version()}, {versions}; "
        f"medians of {rounds} rounds in turns. Of two figures in one cell the first is the peer's."
    )


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; what is wrong with it ends the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [*(scenario.name for scenario in SCENARIOS), *OTHERS]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        metavar="NAME",
        help=f"of {', '.join(names)}; {', '.join(NAMED_ONLY)} only so",
    )
    parser.add_argument(
        "--latency", nargs="+", type=float, help="seconds that each call to Encord takes longer"
    )
    parser.add_argument("--tls", action="store_true", help="with TLS")
    parser.add_argument("--plain", action="store_true", help="without")
    parser.add_argument(
        "--pool", nargs="+", choices=POOLS, help="prefork has two processes, threads sixteen threads"
    )
    parser.add_argument(
        "--all", action="store_true", help="every latency, with TLS and without, both pools: hours"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--tasks", type=int, help="agent tasks in each run, instead of what suits the scenario"
    )
    parser.add_argument(
        "--profile", type=Path, help="a folder for profiles of our worker's processes (prefork)"
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the table between the markers of this page"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
