"""``celery -A app agents replay``: send agent tasks that FAILED again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from celery_agents import backends, claims
from celery_agents.claims import Outgoing
from celery_agents.cli.books import NOT_ALL, Book, books
from celery_agents.cli.failures import Selection, selection_options
from celery_agents.cli.terminal import Terminal, celery_command, count, json_option, print_json, table
from celery_agents.cli.workers import reach_broker
from celery_agents.errors import LedgerError
from celery_agents.producer.listing import SPECS_PER_FLUSH
from celery_agents.sizes import usual
from celery_agents.task import StageTask

if TYPE_CHECKING:
    from celery_agents.ledger import Record

#: Ids that the follow-up command names; the table has them all.
IDS_IN_HINT = 3


@click.command("replay")
@selection_options
@json_option
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Send agent tasks that FAILED again, from the specs that were kept, as new messages in the stage's batch size.

    What is in flight already is left out. A failure is forgotten when it is sent: if the agent task fails again it is
    back, and one that was poison gets a new life. What has left its stage meanwhile ends as GONE. "-" reads UUIDs of
    agent tasks from standard input. Needs a ledger: the setting agents_ledger_url.

    \b
    Examples:
      celery -A app agents replay 0d9c6a1e-…
      celery -A app agents replay --error ValueError --stage "Pre-label" --since 1d
      celery -A app agents failed --ids --limit 10 | celery -A app agents replay -
      celery -A app agents replay --all --yes --json

    \b
    Exit codes:
      0  sent, or with --all or --error: there is nothing to send
      1  could not be sent, or there is no ledger; or you said no
      2  wrong usage
      3  some were left out, see what is said on stderr
    """  # noqa: D301 - click reads \b
    terminal, selection = Terminal.of(ctx), Selection.of(options)
    all_books = books(ctx.obj.app, options["stages"])
    selection.confirm("Send again", options)
    reach_broker(ctx.obj.app)  # before anything is forgotten
    backends.check(ctx.obj.app)
    replay = _Replay(terminal)
    for book in all_books:
        replay.send(book, selection.records(book, terminal))
    replay.note_unknown(selection.uuids)
    replay.show(ctx, as_json=options["as_json"])
    ctx.exit(NOT_ALL if replay.left_out else 0)


@dataclass
class _Replay:
    """One run of the command."""

    terminal: Terminal
    sent: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[UUID, str] = field(default_factory=dict)  #: agent task -> why
    seen: set[UUID] = field(default_factory=set)

    def send(self, book: Book, records: Sequence[Record]) -> None:
        """Send what can be sent."""
        by_stage: dict[UUID, list[Record]] = {}
        for record in records:
            self.seen.add(record.task_uuid)
            if record.spec is None:
                self.left_out[record.task_uuid] = (
                    "its spec was too long to be kept; enqueue finds it at its stage"
                )
            elif record.stage_uuid not in book.by_stage:
                self.left_out[record.task_uuid] = f"no agent is declared here for stage {record.stage_uuid}"
            else:
                by_stage.setdefault(record.stage_uuid, []).append(record)
        for stage, failures in by_stage.items():
            for start in range(0, len(failures), SPECS_PER_FLUSH):
                self._send_some(book, stage, failures[start : start + SPECS_PER_FLUSH])

    def _send_some(self, book: Book, stage: UUID, failures: Sequence[Record]) -> None:
        task = book.by_stage[stage]
        of_task = {record.task_uuid: record for record in failures}
        unsent = claims.claim(
            book.ledger,
            stage,
            list(_batches(failures, usual(task.stage_agent.options.batch_size))),
            ttl=claims.SENDING_SECONDS,
            on_skipped=self._note_in_flight,
        )
        forgotten, sent = False, list(unsent)
        try:
            # Before it is sent: a failure that comes of the sending is a new one.
            book.ledger.discard([uuid for each in unsent for uuid, _ in each.specs])
            forgotten = True
            with task.app.producer_or_acquire() as producer:
                while unsent:
                    self._send_one(task, unsent[0], producer)
                    del unsent[0]
        except BaseException:
            if forgotten:
                self._restore(book, stage, unsent, of_task)
            claims.release(book.ledger, stage, unsent)
            self._say_what_was_sent_before()
            raise
        claims.confirm(book.ledger, stage, sent)

    def _note_in_flight(self, held: Mapping[UUID, str]) -> None:
        self.left_out.update((uuid, f"it is in flight, in message {id_}") for uuid, id_ in held.items())

    def _send_one(self, task: StageTask, outgoing: Outgoing, producer: Any) -> None:
        specs = [text for _, text in outgoing.specs]
        task.apply_async(args=[specs], task_id=outgoing.message_id, producer=producer)
        self.sent.append(
            {
                "id": outgoing.message_id,
                "stage": str(task.stage_agent.stage),
                "task": task.name,
                "agent_tasks": len(specs),
            }
        )

    def _restore(
        self, book: Book, stage: UUID, unsent: Sequence[Outgoing], of_task: Mapping[UUID, Record]
    ) -> None:
        """Put back the failures of what could not be sent; if it arrived after all, its worker decides."""
        from celery_agents.ledger import Settlement  # here, because it imports redis

        try:
            for message, record in ((each, of_task[uuid]) for each in unsent for uuid, _ in each.specs):
                kept = [Settlement(record.outcome, record.attempts, record.spec)]
                book.ledger.settle(stage, message.message_id, 0, kept, where=record.where, is_last=False)
        except LedgerError as error:
            self.terminal.warn(
                f"failures were forgotten, and `agents enqueue` will find their agent tasks: {error}"
            )

    def _say_what_was_sent_before(self) -> None:
        if self.sent:
            ids = " ".join(each["id"] for each in self.sent)
            self.terminal.warn(f"these messages had been sent before and will be processed: {ids}")

    def note_unknown(self, uuids: Sequence[UUID]) -> None:
        """Note those that were asked for by name and of which no failure is kept."""
        for uuid in uuids:
            if uuid not in self.seen:
                self.left_out[uuid] = "no such failure is kept"

    def show(self, ctx: click.Context, *, as_json: bool) -> None:
        """Print what was sent and what was not."""
        ids = [each["id"] for each in self.sent]
        for uuid, why in self.left_out.items():
            self.terminal.warn(f"agent task {uuid} was left out: {why}.")
        if as_json:
            left_out = [{"task_uuid": uuid, "why": why} for uuid, why in self.left_out.items()]
            print_json({"sent": self.sent, "ids": ids, "left_out": left_out})
        elif not ids:
            self.terminal.say("Nothing was sent.")
        else:
            rows = [(each["id"], each["stage"], f"{each['agent_tasks']:,}") for each in self.sent]
            self.terminal.say(table(("message", "stage", "agent tasks"), rows, right=("agent tasks",)))
            shown = " ".join(ids) if len(ids) <= IDS_IN_HINT else "ID…"
            status = celery_command(ctx, f"agents status {shown}")
            self.terminal.note(f"{count(len(ids), 'message')} sent. What became of it: {status}")


def _batches(failures: Sequence[Record], size: int) -> Iterator[list[claims.Spec]]:
    for start in range(0, len(failures), size):
        yield [
            (each.task_uuid, each.spec) for each in failures[start : start + size] if each.spec is not None
        ]
