"""What `python -m benchmarks` measures for which arguments."""

from __future__ import annotations

import pytest

from benchmarks import growth
from benchmarks.__main__ import NAMED_ONLY, OTHERS, options_of, selected
from benchmarks.scenarios import SCENARIOS


def measures(*arguments: str) -> list[object]:
    return [getattr(measure, "func", None) for measure in selected(options_of(arguments))]


def test_what_takes_long_is_measured_where_it_is_named() -> None:
    assert measures("--only", "growth-million") == [growth.growth_million]
    assert measures("--only", "growth", "growth-million") == [growth.growth, growth.growth_million]


def test_without_a_selection_everything_else_is_measured() -> None:
    usual = sum(len(scenario.usual) for scenario in SCENARIOS)
    assert len(measures()) == usual + len(OTHERS) - len(NAMED_ONLY)
    assert growth.growth in measures()
    assert growth.growth_million not in measures()


@pytest.mark.parametrize("arguments", [["--all"], ["--latency", "0.1"], ["--tls"]])
def test_conditions_are_for_scenarios(arguments: list[str]) -> None:
    assert not set(measures(*arguments)) & set(OTHERS.values())
