"""The table of results: on the terminal, and in Markdown between two markers of a page."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

# A file or a pipe has no width, and the table has nine columns.
_CONSOLE = Console() if sys.stdout.isatty() else Console(width=220)
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


def tell(row: Row) -> None:
    """Print one row, as soon as it is there."""
    figures = (row.ratio, row.calls and f"{row.calls} calls", row.cpu and f"{row.cpu} of CPU", row.memory)
    told = ", ".join(filter(None, (f"{row.theirs} → {row.ours}", *figures)))
    _CONSOLE.print(f"{row.what}\n    {row.peer}: {told}", highlight=False)
    sys.stdout.flush()


def show(rows: Sequence[Row]) -> None:
    """Print all rows."""
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*astuple(row))
    _CONSOLE.print(table)


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
