"""``celery -A app agents failed``: the failures that are kept, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from celery_agents.cli.books import Book, books, record_row, warn_of_trouble, when
from celery_agents.cli.failures import filter_options, warn_of
from celery_agents.cli.terminal import Terminal, celery_command, count, json_option, print_json, table

if TYPE_CHECKING:
    from celery_agents.ledger import Record

COLUMNS = ("data unit", "agent task", "stage", "error", "attempts", "when", "worker")


@click.command("failed")
@filter_options
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="List at most so many."
)
@click.option(
    "--ids", "prints_ids", is_flag=True, help="Print the agent tasks' UUIDs, one per line, and nothing else."
)
@json_option
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """List the agent tasks that FAILED and neither succeeded since nor were discarded, newest first.

    They are kept for two weeks, each with its spec, so that `agents replay` can send it again, and with every attempt's
    error (--json). Needs a ledger: the setting agents_ledger_url.

    \b
    Examples:
      celery -A app agents failed
      celery -A app agents failed --stage "Pre-label" --error ValueError --since 2h
      celery -A app agents failed --error TimeoutError --ids | celery -A app agents replay -

    \b
    Exit codes:
      0  listed, also where there are none
      1  there is no ledger, or it cannot be reached
      2  wrong usage
    """  # noqa: D301 - click reads \b
    terminal = Terminal.of(ctx)
    all_books = books(ctx.obj.app, options["stages"])
    found, total = _failures(all_books, options, terminal)
    if options["prints_ids"]:
        for uuid in dict.fromkeys(record.task_uuid for _, record in found):
            click.echo(str(uuid))
    elif options["as_json"]:
        print_json({"total": total, "failures": [record_row(record, book) for book, record in found]})
    else:
        _show(ctx, terminal, found, total)
    warn_of_trouble(terminal, all_books)


def _failures(
    all_books: Sequence[Book], options: dict[str, Any], terminal: Terminal
) -> tuple[list[tuple[Book, Record]], int]:
    found: list[tuple[Book, Record]] = []
    total, limit = 0, options["limit"]
    for book, stage in [(each, stage) for each in all_books for stage in each.asked_for]:
        page = book.ledger.failures(
            stage, since=options["since"], error_type=options["error_type"], limit=limit
        )
        warn_of(terminal, page.complaints)
        total += page.total
        found += [(book, record) for record in page.records]
    return sorted(found, key=lambda pair: pair[1].at, reverse=True)[:limit], total


def _show(ctx: click.Context, terminal: Terminal, found: Sequence[tuple[Book, Record]], total: int) -> None:
    if not found:
        terminal.say("No failure is kept.")
        return
    terminal.say(table(COLUMNS, (_cells(record, book) for book, record in found), right=("attempts",)))
    if total > len(found):
        terminal.note(f"{len(found):,} of {count(total, 'failure')} are shown; --limit shows more.")
    terminal.note(f"Send them again: {celery_command(ctx, 'agents replay UUID…')}")


def _cells(record: Record, book: Book) -> list[object]:
    error = record.outcome.error
    first_line = next(iter(error.detail.splitlines()), "") if error else ""
    return [
        record.outcome.data_title or record.outcome.data_hash,
        record.task_uuid,
        book.title_of(record.stage_uuid),
        f"{error.type.removeprefix('builtins.')}: {first_line}" if error else None,
        record.attempts,
        when(record.at),
        record.where or None,
    ]
