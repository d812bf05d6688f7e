"""What the demo shows: bars on a terminal, plain lines elsewhere, and the table at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from celery_agents.groups import GroupSummary
from examples.demo.checks import StageRun

Update = Callable[[GroupSummary], None]

#: Differences shown in full; what went wrong for one agent task often went wrong for all.
SHOWN = 20
#: A plain line for each so many of a stage's agent tasks: a fifth of them.
LINES_PER_STAGE = 5


class View:
    """Prints to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line."""
        self._console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Update]:
        """Show the progress of one stage."""
        if self._console.is_terminal:
            with _bars(self._console) as bars:
                bar = bars.add_task(title, total=total)
                yield lambda summary: bars.update(bar, completed=summary.progress.done)
        else:
            yield self._lines(title, total)

    def _lines(self, title: str, total: int) -> Update:
        shown = 0

        def update(summary: GroupSummary) -> None:
            nonlocal shown
            done = summary.progress.done
            if done * LINES_PER_STAGE // max(total, 1) > shown:
                shown = done * LINES_PER_STAGE // max(total, 1)
                self.say(f"  {title}: {done} of {total} agent tasks done")

        return update

    def table(self, runs: Sequence[StageRun]) -> None:
        """Print what became of the agent tasks of each stage."""
        table = Table("stage", "pathway", "outcome")
        for column in ("agent tasks", "agent tasks/s", "Encord calls each", "downloads each"):
            table.add_column(column, justify="right")
        for run in runs:
            for row in _rows(run):
                table.add_row(*row)
        self._console.print(table)

    def differences(self, found: Sequence[str], tails: str) -> None:
        """Print what is not as it must be, and the ends of the logs, where the reason may stand."""
        self.say(tails)
        for difference in found[:SHOWN]:
            self.say(f"✗ {difference}", style="red")
        self.say(f"{len(found)} differences from what must be.", style="bold red")


def _rows(run: StageRun) -> Iterator[tuple[str, ...]]:
    """One row for each pathway and outcome; what concerns the stage stands in its first."""
    total = max(len(run.outcomes), 1)
    rates = (f"{total / run.seconds:.0f}", f"{run.encord_calls / total:.2f}", f"{run.downloads / total:.2f}")
    groups = Counter((outcome.pathway_name or "", outcome.outcome.value) for outcome in run.outcomes)
    for number, ((pathway, outcome), count) in enumerate(sorted(groups.items())):
        yield ("" if number else run.stage, pathway, outcome, str(count), *([""] * 3 if number else rates))


def _bars(console: Console) -> Progress:
    columns = (TextColumn("  {task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)
