"""The table of results: on the terminal, and in Markdown between two markers of a page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
HEADINGS = (
    "what",
    "peer",
    "the peer's figure",
    "ours",
    "ratio",
    "calls per 100",
    "connections per 100",
    "CPU, each",
    "memory",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison. Of two figures in one cell the first is the peer's."""

    what: str
    peer: str
    theirs: str
    ours: str
    ratio: str = ""
    calls: str = ""
    connections: str = ""
    cpu: str = ""
    memory: str = ""


def spread(ratios: Sequence[float]) -> str:
    """Return the median of some ratios, and the least and greatest."""
    middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
    digits = 1 if middle >= 10 else 2
    return f"{middle:.{digits}f}x ({least:.{digits}f} to {most:.{digits}f})"


def show(rows: Sequence[Row]) -> None:
    """Print all rows."""
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*astuple(row))
    Console().print(table)


def markdown(rows: Sequence[Row], about: str) -> str:
    """Return the rows as a table, and *about* below it."""
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *map(astuple, rows)]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", about])


def write(page: Path, text: str) -> None:
    """Put *text* between the markers of a page; ValueError where there are none."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}.")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
