"""Runs the scenarios, ours beside a peer, and makes a row of each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from benchmarks.contest import Run, compete
from benchmarks.contestants import Conditions
from benchmarks.scenarios import Scenario
from benchmarks.tables import Row, spread

Rounds = Sequence[tuple[Run, Run]]  # ours, the peer's


def duel(
    scenario: Scenario,
    conditions: Conditions,
    rounds: int,
    *,
    tasks: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Row:
    """Run a scenario so many times; see `compete`."""
    both = (scenario.ours, scenario.peer)
    results = [
        (runs[scenario.ours.name], runs[scenario.peer.name])
        for runs in compete(both, conditions, rounds, tasks=tasks, env=env)
    ]
    return row(scenario, conditions, results)


def row(scenario: Scenario, conditions: Conditions, rounds: Rounds) -> Row:
    """Make a row of what was measured: medians, and ratios of throughput round by round."""
    return Row(
        what=f"{scenario.what}; {conditions}",
        peer=scenario.peer.name,
        theirs=_rate([theirs for _, theirs in rounds]),
        ours=_rate([ours for ours, _ in rounds]) + _share(scenario, conditions, rounds),
        ratio=spread([ours.throughput / theirs.throughput for ours, theirs in rounds]),
        calls=_both(rounds, lambda run: 100 * run.calls / run.tasks, "{:.1f}"),
        connections=_both(rounds, lambda run: 100 * run.connections / run.tasks, "{:.1f}"),
        cpu=_both(rounds, lambda run: 1000 * run.cpu / run.tasks, "{:.3f}") + " ms",
        memory=_both(rounds, lambda run: run.memory / 2**20, "{:.0f}") + " MB",
    )


def _rate(runs: Sequence[Run]) -> str:
    return f"{statistics.median(run.throughput for run in runs):,.0f}/s"


def _share(scenario: Scenario, conditions: Conditions, rounds: Rounds) -> str:
    if scenario.ceiling is None:
        return ""
    ceiling = scenario.ceiling * conditions.slots
    share = statistics.median(ours.throughput for ours, _ in rounds) / ceiling
    return f", {share:.0%} of the ceiling"


def _both(rounds: Rounds, figure: Callable[[Run], float], form: str) -> str:
    """Return two medians, the peer's first."""
    ours, theirs = (statistics.median(map(figure, runs)) for runs in zip(*rounds, strict=True))
    return f"{form.format(theirs)} → {form.format(ours)}"
