"""``celery -A app agents outcome``: what became of agent tasks, across stages, messages and retries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click
from rich.text import Text

from celery_agents.cli.books import NOT_ALL, Book, books, record_row, warn_of_trouble, when
from celery_agents.cli.completion import error_text, styled_outcome
from celery_agents.cli.failures import warn_of
from celery_agents.cli.given import uuids_of
from celery_agents.cli.terminal import ExitCode, Terminal, json_option, print_json, table
from celery_agents.messages import Outcome
from celery_agents.redaction import redact

if TYPE_CHECKING:
    from celery_agents.ledger import Claim, Record

COLUMNS = ("agent task", "stage", "outcome", "pathway", "when", "worker", "message", "attempts")


@dataclass(frozen=True, slots=True)
class Flight:
    """A message that has an agent task now."""

    task_uuid: UUID
    stage_uuid: UUID
    claim: Claim


@dataclass(frozen=True, slots=True)
class Known:
    """What one ledger knows of what was asked about."""

    book: Book
    records: list[Record]  #: newest first
    flights: list[Flight]
    names: set[UUID]  #: the agent tasks and data units that it knows something of


@click.command("outcome")
@click.argument("ids", nargs=-1, required=True, metavar="UUID…")
@json_option
@click.pass_context
def command(ctx: click.Context, ids: Sequence[str], as_json: bool) -> None:
    """Tell what became of agent tasks, by their UUIDs or those of their data units (data hashes).

    One row for each agent task and stage, newest first, whatever message it was in: a replay or a later sweep replaces
    the row. Who has it now is told as well. "-" reads the UUIDs from standard input. Needs a ledger (the setting
    agents_ledger_url), which keeps outcomes for a day and failures for two weeks.

    \b
    Examples:
      celery -A app agents outcome 0d9c6a1e-…
      celery -A app agents outcome 0d9c6a1e-… --json | jq -r '.outcomes[0].error.traceback'
      celery -A app agents failed --ids | celery -A app agents outcome -

    \b
    Exit codes:
      0  all have an outcome or are in flight, and nothing FAILED
      1  something FAILED; or there is no ledger, or it cannot be reached
      2  wrong usage
      3  of some nothing is known
    """  # noqa: D301 - click reads \b
    uuids, terminal = uuids_of(ids), Terminal.of(ctx)
    known = [_look_up(book, uuids, terminal) for book in books(ctx.obj.app)]
    unknown = [each for each in uuids if not any(each in one.names for one in known)]
    if as_json:
        print_json(_document(known, unknown))
    else:
        _show(terminal, known, unknown)
    warn_of_trouble(terminal, (one.book for one in known))
    ctx.exit(_exit_code(known, unknown))


def _exit_code(known: Iterable[Known], unknown: Sequence[UUID]) -> int:
    if any(record.outcome.outcome is Outcome.FAILED for one in known for record in one.records):
        return ExitCode.FAILED
    return NOT_ALL if unknown else ExitCode.DONE


def _look_up(book: Book, uuids: Sequence[UUID], terminal: Terminal) -> Known:
    records = _records(book, uuids, terminal)
    names = {name for each in records for name in (each.task_uuid, each.outcome.data_hash) if name}
    waiting = _waiting(book, [each for each in uuids if each not in names])
    tasks = {*uuids, *(each.task_uuid for each in records), *waiting}
    flights = _flights(book, tasks, {each.stage_uuid for each in records})
    names.update(each.task_uuid for each in flights)
    names.update(waiting[each.task_uuid] for each in flights if each.task_uuid in waiting)
    return Known(book, records, flights, names)


def _records(book: Book, uuids: Sequence[UUID], terminal: Terminal) -> list[Record]:
    newest: dict[tuple[UUID, UUID], Record] = {}
    # Failures are kept longer than outcomes.
    ledger = book.ledger
    for found in (ledger.outcomes_of(uuids), ledger.outcomes_of_data(uuids), ledger.failures_of(uuids)):
        warn_of(terminal, found.complaints)
        for each in found.records:
            earlier = newest.get((each.task_uuid, each.stage_uuid))
            if earlier is None or earlier.at < each.at:
                newest[each.task_uuid, each.stage_uuid] = each
    return sorted(newest.values(), key=lambda each: each.at, reverse=True)


def _waiting(book: Book, data_hashes: Collection[UUID]) -> dict[UUID, UUID]:
    """Return agent task -> data hash of what waits at the stages: a claim does not know its data unit."""
    if not data_hashes:
        return {}
    gateway = book.tasks[0].runner.gateway
    return {
        uuid: task.data_hash
        for stage in book.stages()
        for uuid, task in gateway.tasks_at(stage, data_hashes).items()
    }


def _flights(book: Book, tasks: Collection[UUID], stages: set[UUID]) -> list[Flight]:
    declared = {stage.uuid for stage in book.stages()}
    return [
        Flight(task_uuid, stage, claim)
        for stage in sorted(declared | stages)
        for task_uuid, claim in book.ledger.who_holds(stage, tasks).items()
    ]


def _document(known: Iterable[Known], unknown: Sequence[UUID]) -> dict[str, Any]:
    return {
        "outcomes": [record_row(record, one.book) for one in known for record in one.records],
        "in_flight": [
            {
                "task_uuid": each.task_uuid,
                "stage": one.book.title_of(each.stage_uuid),
                "stage_uuid": each.stage_uuid,
                "message_id": each.claim.message_id,
                "is_queued": each.claim.is_queued,
                "seconds_left": each.claim.seconds_left,
            }
            for one in known
            for each in one.flights
        ],
        "unknown": unknown,
    }


def _show(terminal: Terminal, known: Sequence[Known], unknown: Sequence[UUID]) -> None:
    rows = [_cells(record, one.book) for one in known for record in one.records]
    if rows:
        terminal.say(table(COLUMNS, rows, right=("attempts",)))
    for why in (_why(record, one.book) for one in known for record in one.records):
        if why is not None:
            terminal.say(why)
    for one in known:
        for each in one.flights:
            terminal.say(_flight_text(each, one.book))
    for uuid in unknown:
        terminal.say(
            f"Nothing is known of {uuid}: never run, or no longer kept, or there was no ledger when it ran."
        )


def _cells(record: Record, book: Book) -> list[object]:
    outcome = record.outcome
    pathway = outcome.pathway_name or outcome.pathway
    return [
        record.task_uuid,
        book.title_of(record.stage_uuid),
        styled_outcome(outcome.outcome),
        pathway,
        when(record.at),
        record.where or None,
        record.message_id,
        record.attempts,
    ]


def _why(record: Record, book: Book) -> Text | None:
    """Return the line under the table that says why; a column would be too narrow for it."""
    outcome = record.outcome
    why = error_text(outcome.error) if outcome.error else outcome.detail
    if why is None:
        return None
    mark = ("✗ ", "red") if outcome.error else ("• ", "yellow")
    return Text.assemble(
        mark, (str(record.task_uuid), "dim"), redact(f" at {book.title_of(record.stage_uuid)}: {why}")
    )


def _flight_text(flight: Flight, book: Book) -> str:
    doing = "waits in its queue" if flight.claim.is_queued else "was taken over by a worker"
    return (
        f"In flight: agent task {flight.task_uuid} at {book.title_of(flight.stage_uuid)} is in message "
        f"{flight.claim.message_id}, which {doing}."
    )
