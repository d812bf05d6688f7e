"""``celery -A app agents status``: what became of messages, by their ids."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.text import Text

from celery_agents.cli.completion import counts_text, error_text, exit_code, styled_outcome, styled_status
from celery_agents.cli.given import expanded
from celery_agents.cli.terminal import Terminal, count, json_option, print_json, table
from celery_agents.groups import AgentGroupResult
from celery_agents.results import AgentResult
from celery_agents.snapshots import Snapshot
from celery_agents.status import Status


@click.command("status")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option("--outcomes", "lists_outcomes", is_flag=True, help="List every agent task of the messages.")
@json_option
@click.pass_context
def command(ctx: click.Context, ids: Sequence[str], lists_outcomes: bool, as_json: bool) -> None:
    """Tell what became of messages, by their Celery ids.

    `agents enqueue --ids` prints the ids of what it sends. "-" reads them from standard input, one per line. The
    status of an id that nobody has heard of, or whose result has expired, is UNKNOWN; so is that of a message which
    still waits in its queue, because brokers do not tell.

    \b
    Examples:
      celery -A app agents status 0d9c6a1e-…
      celery -A app agents status 0d9c6a1e-… --outcomes
      celery -A app agents enqueue --ids | celery -A app agents status -

    \b
    Exit codes:
      0  all have ended, and nothing failed
      1  all have ended, and something failed
      2  wrong usage
      3  not all have ended, or an id is UNKNOWN
    """  # noqa: D301 - click reads \b
    app = ctx.obj.app
    group = AgentGroupResult((AgentResult(each, app) for each in _ids(ids)), app)
    snapshots = list(group.snapshots())
    if as_json:
        print_json([snapshot.as_dict() for snapshot in snapshots])
    else:
        _show(Terminal.of(ctx), snapshots, lists_outcomes)
    ctx.exit(exit_code(group.summary()))


def _ids(given: Sequence[str]) -> list[str]:
    ids = list(dict.fromkeys(expanded(given)))
    if not ids:
        raise click.UsageError("standard input has no ids.")
    return ids


def _show(terminal: Terminal, snapshots: Sequence[Snapshot], lists_outcomes: bool) -> None:
    if lists_outcomes:
        for snapshot in snapshots:
            _show_outcomes(terminal, snapshot)
        return
    terminal.say(table(("message", "status", "progress", "outcomes", "why"), map(_cells, snapshots)))


def _cells(snapshot: Snapshot) -> list[object]:
    return [
        snapshot.id,
        styled_status(snapshot.status),
        _progress(snapshot),
        counts_text(snapshot.counts) or None,
        _first_error(snapshot),
    ]


def _progress(snapshot: Snapshot) -> str | None:
    progress = snapshot.progress
    if progress is None:
        return None
    return f"{progress.done:,} of {progress.total:,}" if progress.total else f"{progress.done:,}"


def _first_error(snapshot: Snapshot) -> str | None:
    if snapshot.status is Status.UNKNOWN:
        return "still in its queue, or never heard of, or expired"
    if snapshot.detail:
        return " ".join(snapshot.detail.split())
    first = next(iter(snapshot.errors.values()), None)
    return error_text(first) if first else None


def _show_outcomes(terminal: Terminal, snapshot: Snapshot) -> None:
    terminal.say(
        Text.assemble((snapshot.id, "bold"), "  ", styled_status(snapshot.status), f"  {_summary(snapshot)}")
    )
    completion = snapshot.completion
    if completion is None or not completion.outcomes:
        return
    rows = [
        (
            each.task_uuid,
            each.data_title,
            styled_outcome(each.outcome),
            each.pathway_name,
            error_text(each.error) if each.error else each.detail,
        )
        for each in completion.outcomes
    ]
    terminal.say(table(("agent task", "data unit", "outcome", "pathway", "why"), rows), "")


def _summary(snapshot: Snapshot) -> str:
    if snapshot.completion is not None:
        return count(len(snapshot.completion.outcomes), "outcome")
    return _first_error(snapshot) or "no outcomes"
