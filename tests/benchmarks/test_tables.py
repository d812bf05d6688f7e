"""What `benchmarks` says of its measurements: rows of medians and ratios, and a table between two markers of a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.contest import Run
from benchmarks.contestants import Conditions, Contestant
from benchmarks.duels import row
from benchmarks.scenarios import Scenario
from benchmarks.tables import Row

PAGE = f"# Before\n\n{tables.BEGIN}\nold\n{tables.END}\n\nAfter\n"


def contestant(name: str) -> Contestant:
    return Contestant(name=name, app="ours", agent="wait", size=100, pace=(200, 200, 200))


def run(seconds: float) -> Run:
    return Run(tasks=200, seconds=seconds, cpu=0.1 * seconds, memory=300 * 2**20, calls=4, connections=2)


def test_a_row_has_medians_and_the_ratios_of_each_round() -> None:
    scenario = Scenario(
        name="wait", what="waits", ours=contestant("ours"), peer=contestant("peer"), ceiling=80.0
    )
    # Three rounds, in which ours is 10, 20 and 16 times as fast
    rounds = [(run(2.0), run(20.0)), (run(1.0), run(20.0)), (run(1.25), run(20.0))]

    assert row(scenario, Conditions(latency=0.1), rounds) == Row(
        what="waits; 100 ms, prefork 2",
        peer="peer",
        theirs="10/s",
        ours="160/s, 100% of the ceiling",
        ratio="16.0x (10.0 to 20.0)",
        calls="2.0 → 2.0",
        connections="1.0 → 1.0",
        cpu="10.000 → 0.625 ms",
        memory="300 → 300 MB",
    )


def test_the_table_replaces_what_is_between_the_markers_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)

    tables.write(
        page, tables.markdown([Row(what="waits", peer="peer", theirs="10/s", ours="160/s")], "Today.")
    )

    written = page.read_text()
    assert written.startswith(f"# Before\n\n{tables.BEGIN}\n| what |")
    assert "\n| waits | peer | 10/s | 160/s |  |  |  |  |  |\n\nToday.\n" in written
    assert written.endswith(f"{tables.END}\n\nAfter\n")


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Nothing\n")

    with pytest.raises(ValueError, match="has no lines"):
        tables.write(page, "text")

    assert page.read_text() == "# Nothing\n"
