"""What became of messages, for people and for scripts: exit codes, tables, the first errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from rich.table import Table
from rich.text import Text

from celery_agents.cli.terminal import ExitCode, Terminal, count, table
from celery_agents.groups import GroupSummary
from celery_agents.messages import Outcome, TaskError
from celery_agents.snapshots import ErrorKey, Snapshot
from celery_agents.status import Status

#: Errors shown under a table; ``agents status ID --outcomes`` and ``--json`` show all.
ERRORS_SHOWN = 5
#: Columns that an error's text may take there.
ERROR_WIDTH = 160

STATUS_STYLES = {
    Status.UNKNOWN: "magenta",
    Status.QUEUED: "cyan",
    Status.RUNNING: "blue",
    Status.RETRYING: "yellow",
    Status.SUCCEEDED: "green",
    Status.PARTIAL: "yellow",
}
OUTCOME_STYLES = {
    Outcome.PROCEEDED: "green",
    Outcome.HELD: "cyan",
    Outcome.GONE: "yellow",
    Outcome.FAILED: "red",
}


def exit_code(summary: GroupSummary) -> ExitCode:
    """Return what a script wants to know: not all have ended, something failed, or all is well."""
    if not summary.is_final:
        return ExitCode.TIMED_OUT
    has_failed = summary.outcomes[Outcome.FAILED] or set(+summary.messages) - {Status.SUCCEEDED}
    return ExitCode.FAILED if has_failed else ExitCode.DONE


def styled_status(status: Status) -> Text:
    """Return *status* in its colour; what has failed is red."""
    return Text(status.value, STATUS_STYLES.get(status, "red"))


def styled_outcome(outcome: Outcome) -> Text:
    """Return *outcome* in its colour."""
    return Text(outcome.value, OUTCOME_STYLES[outcome])


def counts_text(counts: Mapping[Outcome, int]) -> str:
    """Return ``8 PROCEEDED, 1 HELD``, in the order in which outcomes are declared."""
    return ", ".join(f"{counts[outcome]:,} {outcome}" for outcome in Outcome if counts.get(outcome))


def verdict(summary: GroupSummary) -> Text:
    """Return the last line about a group: its status, and what became of how many."""
    counts = counts_text(summary.outcomes) or "no outcomes"
    return Text.assemble("\n", styled_status(summary.status), f": {counts}")


def progress_text(summary: GroupSummary) -> str:
    """Return one line about a group that is worked on."""
    progress = summary.progress
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    open_messages = sum(number for status, number in summary.messages.items() if not status.is_final)
    return f"{progress.done:,} of {count(progress.total, 'agent task')}{failed}, {count(open_messages, 'message')} open"


@dataclass
class Tally:
    """Outcomes of many messages, added up message by message so that they need not be held."""

    titles: Mapping[UUID, str]  #: stage -> title
    rows: Counter[tuple[str, Outcome, str]] = field(
        default_factory=Counter
    )  #: stage, outcome, pathway -> number
    errors: list[tuple[ErrorKey, TaskError]] = field(default_factory=list)  #: the first few
    failed: int = 0  #: how many errors there were

    def add(self, snapshots: Iterable[Snapshot]) -> None:
        """Add what became of these messages."""
        for snapshot in snapshots:
            self._add_outcomes(snapshot)
            for pair in snapshot.errors.items():
                self.failed += 1
                if len(self.errors) < ERRORS_SHOWN:
                    self.errors.append(pair)

    def _add_outcomes(self, snapshot: Snapshot) -> None:
        completion = snapshot.completion
        if completion is None:
            return
        stage = self.titles.get(completion.stage_uuid, "?") if completion.stage_uuid else "?"
        for each in completion.outcomes:
            self.rows[stage, each.outcome, each.pathway_name or ""] += 1

    def as_table(self) -> Table:
        """Return the table: one row for each stage, outcome and pathway."""
        order = list(Outcome)
        rows = sorted(self.rows.items(), key=lambda row: (row[0][0], order.index(row[0][1]), row[0][2]))
        return table(
            ("stage", "outcome", "pathway", "agent tasks"),
            [
                (stage, styled_outcome(outcome), pathway or None, f"{number:,}")
                for (stage, outcome, pathway), number in rows
            ],
            right=("agent tasks",),
        )

    def as_rows(self) -> list[dict[str, Any]]:
        """Return the table for scripts."""
        return [
            {"stage": stage, "outcome": outcome.value, "pathway": pathway or None, "agent_tasks": number}
            for (stage, outcome, pathway), number in self.rows.items()
        ]

    def errors_as_rows(self) -> list[dict[str, Any]]:
        """Return the first errors for scripts."""
        return [
            {"agent_task": str(key), "type": error.type, "detail": error.detail} for key, error in self.errors
        ]


def show_errors(terminal: Terminal, tally: Tally) -> None:
    """Print the first errors, one line each."""
    for key, error in tally.errors:
        line = Text.assemble(("✗ ", "red"), (str(key), "dim"), f" {error_text(error)}")
        line.truncate(ERROR_WIDTH, overflow="ellipsis")
        terminal.say(line)
    if tally.failed > len(tally.errors):
        terminal.say(Text(f"… and {tally.failed - len(tally.errors):,} more", "dim"))


def error_text(error: TaskError) -> str:
    """Return why an agent task failed on one line: where, which exception, its text."""
    where = "" if error.step == "agent" else f"[{error.step}] "
    return f"{where}{error.type.removeprefix('builtins.')}: {' '.join(error.detail.split())}"
