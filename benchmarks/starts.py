"""What is waited for once: imports, the command line, a worker's first result."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.contestants import Conditions
from benchmarks.places import Place, places, started
from benchmarks.scenarios import bare, ours
from benchmarks.servers import ROOT
from benchmarks.tables import Row, spread

#: Starts in one round: each takes a moment only.
STARTS = 5

CELERY = (sys.executable, "-m", "celery")


def imports(rounds: int) -> Row:
    """Return what the package costs everybody who starts `celery`."""
    python = (sys.executable, "-c")
    return _beyond(
        "`import celery_agents`, beyond Python's start",
        "Python",
        (*python, "pass"),
        (*python, "import celery_agents"),
        rounds,
    )


def command_line(rounds: int) -> Row:
    """Return what our commands cost, for an app that does not import the SDK."""
    return _beyond(
        "`celery -A app agents --help`, beyond `celery --help`",
        "bare Celery",
        (*CELERY, "--help"),
        (*CELERY, "-A", "benchmarks.apps.light", "agents", "--help"),
        rounds,
    )


def _beyond(what: str, peer: str, other: Sequence[str], own: Sequence[str], rounds: int) -> Row:
    pairs = [(_cpu(own), _cpu(other)) for _ in range(rounds * STARTS)]
    beyond = statistics.median(mine - theirs for mine, theirs in pairs)
    theirs = statistics.median(theirs for _, theirs in pairs)
    return Row(what=what, peer=peer, theirs=f"{1000 * theirs:.0f} ms", ours=f"+{1000 * beyond:.0f} ms of CPU")


def _cpu(command: Sequence[str]) -> float:
    """Return the seconds of CPU that a program takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # As for everybody: what is imported is compiled once.
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_result(rounds: int) -> Row:
    """Return the seconds from a worker's start to its first finished agent task, beside the same calls by hand."""
    contestants = (ours("nothing", (1, 1, 1), size=1), bare("same_calls", (1, 1, 1), size=1))
    conditions = Conditions()
    with ExitStack() as stack:
        both = list(places(contestants, conditions, stack, {}))
        pairs = [[_first(place, conditions) for place in both] for _ in range(rounds)]
    own, theirs = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return Row(
        what="worker start to first finished agent task",
        peer=f"{contestants[1].name}, the same calls by hand",
        theirs=f"{theirs:.2f} s",
        ours=f"{own:.2f} s",
        ratio=spread([mine / other for mine, other in pairs]),
    )


def _first(place: Place, conditions: Conditions) -> float:
    place.fill(1)
    began = time.perf_counter()
    with started(place, conditions):
        place.sender.ask("send", size=1)
        return time.perf_counter() - began
