"""``celery -A app agents enqueue``: send what waits at agent stages to the workers, and wait for it if asked to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import click

from celery_agents import producer
from celery_agents.cli.completion import Tally, exit_code, progress_text, show_errors, verdict
from celery_agents.cli.declarations import agent_tasks, chosen
from celery_agents.cli.meter import Meter
from celery_agents.cli.terminal import (
    ExitCode,
    Terminal,
    celery_command,
    count,
    json_option,
    print_json,
    table,
)
from celery_agents.cli.workers import nobody_listens, reach_broker, unheard
from celery_agents.groups import AgentGroupResult, GroupSummary
from celery_agents.producer import TASK_STATUSES, SentMessage, TaskFilters
from celery_agents.results import AgentResult
from celery_agents.task import StageTask

#: Ids that the follow-up command names; more would fill the screen.
IDS_IN_HINT = 3


@click.command("enqueue")
@click.option(
    "--stage", "stages", multiple=True, metavar="STAGE", help="Title or UUID, as declared; repeatable. [all]"
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Agent tasks per message. [the stage's own]")
@click.option(
    "--limit", type=click.IntRange(min=0), help="Send at most so many agent tasks, over all stages."
)
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(TASK_STATUSES, case_sensitive=False),
    help="Only these; repeatable.",
)
@click.option("--title", metavar="TEXT", help="Only data units with this in their title.")
@click.option("--data-hash", multiple=True, type=click.UUID, help="Only this data unit; repeatable.")
@click.option("--dataset-hash", multiple=True, type=click.UUID, help="Only this dataset; repeatable.")
@click.option("--assignee", multiple=True, metavar="EMAIL", help="Only what is assigned to them; repeatable.")
@click.option("--force", is_flag=True, help="Send also what other messages have; see the ledger below.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the outcomes, and show them.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait so long at most. Implies --wait."
)
@click.option(
    "--ids", "prints_ids", is_flag=True, help="Print the messages' ids, one per line, and nothing else."
)
@json_option
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Send the agent tasks that wait at agent stages to the workers, in batches.

    All stages that have an agent, or those named. Nothing is taken away from Encord: an agent task leaves its stage
    when its agent's answer is carried out. Results go to stdout; progress and warnings go to stderr.

    With a ledger (the setting agents_ledger_url) nothing is sent that another message has; what was left out is told.
    --force takes it away from those messages: what they are running is then not committed.

    \b
    Examples:
      celery -A app agents enqueue
      celery -A app agents enqueue --stage "Pre-label" --limit 10 --wait
      celery -A app agents enqueue --title cat --status NEW --json
      celery -A app agents enqueue --ids > ids.txt; celery -A app agents status - < ids.txt

    \b
    Exit codes:
      0    sent, or nothing waits; with --wait: all have ended, and nothing failed
      1    could not be sent; with --wait: something FAILED
      2    wrong usage
      3    --timeout has passed, and not all have ended
      130  Ctrl-C; what was sent goes on
    """  # noqa: D301 - click reads \b
    sweep = _Sweep(ctx, options)
    group = sweep.send()
    if not len(group):
        sweep.say_nothing_was_sent()
        return
    sweep.say_what_was_sent()
    if options["waits"] or options["timeout"] is not None:
        ctx.exit(sweep.wait(group))


class _Sweep:
    """One run of the command."""

    def __init__(self, ctx: click.Context, options: dict[str, Any]) -> None:
        self.ctx = ctx
        self.options = options
        self.terminal = Terminal.of(ctx)
        self.tasks: Sequence[StageTask] = chosen(agent_tasks(ctx.obj.app), options["stages"])
        self.sent: list[SentMessage] = []
        self.skipped = 0
        self.is_waiting = bool(options["waits"]) or options["timeout"] is not None

    @property
    def _prints_tables(self) -> bool:
        return not (self.options["as_json"] or self.options["prints_ids"])

    @property
    def _is_filtered(self) -> bool:
        names = ("limit", "status", "title", "data_hash", "dataset_hash", "assignee")
        return any(self.options[name] not in (None, ()) for name in names)

    def send(self) -> AgentGroupResult:
        """Send everything; where that breaks off, say what was sent before."""
        app = self.ctx.obj.app
        reach_broker(app)  # before Encord is asked for what could then not be sent
        if self.is_waiting:
            AgentResult(
                uuid4(), app
            ).snapshot()  # before sending: without a result backend there is nothing to wait for
        specs = 0
        with self._telling_what_was_sent(), Meter(self.terminal, "Sending") as meter:

            def note(message: SentMessage) -> None:
                nonlocal specs
                self.sent.append(message)
                specs += message.size
                text = f"{count(specs, 'agent task')} in {count(len(self.sent), 'message')}"
                meter.update(specs, self.options["limit"], text)

            return producer.sweep(
                self.tasks,
                batch_size=self.options["batch_size"],
                limit=self.options["limit"],
                filters=self._filters(),
                on_sent=note,
                on_skipped=self._count_skipped,
                force=self.options["force"],
            )

    def _count_skipped(self, held: Mapping[UUID, str]) -> None:
        self.skipped += len(held)

    def _filters(self) -> TaskFilters:
        # An empty filter of TaskFilters lets nothing through; an option that was not given lets everything.
        return TaskFilters(
            status=self.options["status"] or None,
            data_title=self.options["title"],
            data_hash=self.options["data_hash"] or None,
            dataset_hash=self.options["dataset_hash"] or None,
            assignee=self.options["assignee"] or None,
        )

    @contextmanager
    def _telling_what_was_sent(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if self.sent:
                specs = sum(each.size for each in self.sent)
                self.terminal.warn(
                    f"{count(specs, 'agent task')} in {count(len(self.sent), 'message')} had been sent before and "
                    f"will be processed. {self._how_to_look()}"
                )
            raise

    def say_nothing_was_sent(self) -> None:
        """Say so plainly; for scripts, with an empty list."""
        self._say_what_was_skipped()
        if self.options["as_json"]:
            # What a script reads when something was waited for is there too: nothing failed.
            print_json(
                {
                    "sent": [],
                    **self._skipped_count(),
                    **(_became(GroupSummary(), Tally({})) if self.is_waiting else {}),
                    "ids": [],
                }
            )
        elif self._prints_tables and self.skipped:
            self.terminal.say("Nothing was sent.")
        elif self._prints_tables:
            stages = ", ".join(str(task.stage_agent.stage) for task in self.tasks)
            matching = " that matches" if self._is_filtered else ""
            self.terminal.say(f"Nothing to do: no agent task{matching} waits at {stages}.")

    def _skipped_count(self) -> dict[str, int]:
        # Without a ledger nobody knows what is in flight, and 0 would claim that nothing is.
        return {"skipped": self.skipped} if any(task.runner.ledger for task in self.tasks) else {}

    def _say_what_was_skipped(self) -> None:
        if self.skipped:
            why = (
                "was left out: another message has it"
                if self.skipped == 1
                else "were left out: other messages have them"
            )
            outcome = celery_command(self.ctx, "agents outcome UUID")
            self.terminal.note(
                f"{count(self.skipped, 'agent task')} {why}; `{outcome}` tells "
                "which, --force sends them all the same."
            )

    def say_what_was_sent(self) -> None:
        """Print what went where, and warn if nobody listens there."""
        if self.options["prints_ids"]:
            click.echo("\n".join(message.id for message in self.sent))
        elif self._prints_tables:
            rows = [
                (row["stage"], f"{row['agent_tasks']:,}", f"{row['messages']:,}", row["queue"])
                for row in self._rows()
            ]
            columns = ("stage", "agent tasks", "messages", "queue")
            self.terminal.say(table(columns, rows, right=("agent tasks", "messages")))
        elif not self.is_waiting:
            print_json(
                {"sent": self._rows(), **self._skipped_count(), "ids": [message.id for message in self.sent]}
            )
        self._say_what_was_skipped()
        self._warn_if_nobody_listens()
        if self._prints_tables and not self.is_waiting:
            self.terminal.note(self._how_to_look())

    def _rows(self) -> list[dict[str, Any]]:
        queues = {task.name: task.queue_name for task in self.tasks}
        stages = list(dict.fromkeys((message.stage, message.task) for message in self.sent))
        return [
            {
                "stage": stage,
                "task": task,
                "queue": queues.get(task),
                "agent_tasks": sum(each.size for each in self.sent if each.task == task),
                "messages": sum(1 for each in self.sent if each.task == task),
            }
            for stage, task in stages
        ]

    def _warn_if_nobody_listens(self) -> None:
        app = self.ctx.obj.app
        if app.conf.task_always_eager:
            return
        missing = unheard(app, [row["queue"] for row in self._rows()])
        if missing:
            self.terminal.warn(
                f"messages wait: {nobody_listens(missing, celery_command(self.ctx, 'worker'))}"
            )

    def _how_to_look(self) -> str:
        ids = [message.id for message in self.sent]
        status = celery_command(self.ctx, f"agents status {' '.join(ids)}")
        watch = celery_command(self.ctx, "agents watch")
        return f"Follow it: {watch}" if len(ids) > IDS_IN_HINT else f"What became of it: {status}"

    def wait(self, group: AgentGroupResult) -> ExitCode:
        """Wait for the outcomes and show them."""
        try:
            with Meter(self.terminal, "Waiting") as meter:
                group.wait(
                    self.options["timeout"],
                    on_progress=lambda now: meter.update(
                        now.progress.done, now.progress.total, progress_text(now)
                    ),
                )
        except KeyboardInterrupt:
            self.terminal.note(f"Stopped waiting; the work goes on. {self._how_to_look()}", style="yellow")
            raise
        return self._say_what_became(group)

    def _say_what_became(self, group: AgentGroupResult) -> ExitCode:
        summary = group.summary()
        tally = self._tally(group)
        if self.options["as_json"]:
            print_json(
                {"sent": self._rows(), **self._skipped_count(), **_became(summary, tally), "ids": group.ids}
            )
        elif self._prints_tables:
            self.terminal.say("", tally.as_table())
            show_errors(self.terminal, tally)
            self.terminal.say(verdict(summary))
        if not summary.is_final:
            self.terminal.warn(
                f"not all have ended after {self.options['timeout']:g} s. {self._how_to_look()}"
            )
        return exit_code(summary)

    def _tally(self, group: AgentGroupResult) -> Tally:
        tally = Tally({task.agent_stage.uuid: task.agent_stage.title for task in self.tasks})
        tally.add(group.snapshots())
        return tally


def _became(summary: GroupSummary, tally: Tally) -> dict[str, Any]:
    return {**summary.as_dict(), "outcomes": tally.as_rows(), "errors": tally.errors_as_rows()}
