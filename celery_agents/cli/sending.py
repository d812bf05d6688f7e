"""``agents enqueue`` without ``--every``: one sweep, what is said about it, and waiting for its outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import click

from celery_agents.cli.completion import Tally, exit_code, progress_text, show_errors, verdict
from celery_agents.cli.meter import Meter
from celery_agents.cli.sent import Sent, warn_if_nobody_listens
from celery_agents.cli.signals import Interruption
from celery_agents.cli.terminal import ExitCode, Terminal, celery_command, count, print_json, table
from celery_agents.cli.workers import reach_broker
from celery_agents.groups import AgentGroupResult, GroupSummary
from celery_agents.producer.filters import TaskFilters
from celery_agents.producer.reports import Hindrance, Reason, SentMessage, StageReport
from celery_agents.producer.sweeping import sweep
from celery_agents.results import AgentResult
from celery_agents.task import StageTask


class OneSweep:
    """One run of the command.

    Args:
        ctx: The command's.
        tasks: Of the stages.
        filters: Which agent tasks.
        options: The command's, by their names.
    """

    def __init__(
        self,
        ctx: click.Context,
        tasks: Sequence[StageTask],
        filters: TaskFilters,
        options: Mapping[str, Any],
    ) -> None:
        self.ctx = ctx
        self.options = options
        self.terminal = Terminal.of(ctx)
        self.tasks = tasks
        self.filters = filters
        self.sent = Sent(ctx, tasks)
        self.skipped = 0
        self.is_waiting = bool(options["waits"]) or options["timeout"] is not None
        self._asked_for_workers = False

    @property
    def _prints_tables(self) -> bool:
        return not (self.options["as_json"] or self.options["prints_ids"])

    # --------------------------------------------------------------------------------------------------- sending

    def send(self) -> AgentGroupResult:
        """Send everything; where that breaks off, say what was sent before."""
        app = self.ctx.obj.app
        reach_broker(app)  # before Encord is asked for what could then not be sent
        if self.is_waiting:
            AgentResult(
                uuid4(), app
            ).snapshot()  # before sending: without a result backend there is nothing to wait for
        with (
            self._telling_what_was_sent(),
            Interruption() as interruption,
            Meter(self.terminal, "Sending") as meter,
        ):
            return sweep(
                self.tasks,
                batch_size=self.options["batch_size"],
                limit=self.options["limit"],
                filters=self.filters,
                max_in_flight=self.options["max_in_flight"],
                on_sent=lambda message: self._note(message, meter),
                on_skipped=self._count_skipped,
                on_waiting=lambda stages: self._say_why_it_waits(stages, meter),
                force=self.options["force"],
                sending=interruption.held_off,
            )

    def _note(self, message: SentMessage, meter: Meter) -> None:
        self.sent.add(message)
        meter.update(self.sent.agent_tasks, self.options["limit"], str(self.sent))

    def _count_skipped(self, held: Mapping[UUID, str]) -> None:
        self.skipped += len(held)

    def _say_why_it_waits(self, stages: Sequence[StageReport], meter: Meter) -> None:
        hindrances = [(each, each.hindrance) for each in stages if each.hindrance]
        why = "; ".join(f"{stage.stage} waits {_until(hindrance)}" for stage, hindrance in hindrances)
        meter.update(self.sent.agent_tasks, self.options["limit"], f"{self.sent}; {why}")
        full = [stage.queue for stage, hindrance in hindrances if hindrance.reason is Reason.FULL]
        if full and not self._asked_for_workers:
            # Once: without workers it would wait for ever.
            self._asked_for_workers = True
            warn_if_nobody_listens(self.ctx, self.terminal, full)

    @contextmanager
    def _telling_what_was_sent(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if self.sent.ids:
                self.terminal.warn(
                    f"{self.sent} had been sent before and will be processed. {self.sent.how_to_look()}"
                )
            raise

    # ------------------------------------------------------------------------------------------- what came of that

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
            matching = " that matches" if self.filters.as_dict() or self.options["limit"] is not None else ""
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
            click.echo("\n".join(self.sent.ids))
        elif self._prints_tables:
            rows = [
                (row["stage"], f"{row['agent_tasks']:,}", f"{row['messages']:,}", row["queue"])
                for row in self.sent.rows
            ]
            columns = ("stage", "agent tasks", "messages", "queue")
            self.terminal.say(table(columns, rows, right=("agent tasks", "messages")))
        elif not self.is_waiting:
            print_json({"sent": self.sent.rows, **self._skipped_count(), "ids": self.sent.ids})
        self._say_what_was_skipped()
        warn_if_nobody_listens(self.ctx, self.terminal, [row["queue"] for row in self.sent.rows])
        if self._prints_tables and not self.is_waiting:
            self.terminal.note(self.sent.how_to_look())

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
            self.terminal.note(
                f"Stopped waiting; the work goes on. {self.sent.how_to_look()}", style="yellow"
            )
            raise
        return self._say_what_became(group)

    def _say_what_became(self, group: AgentGroupResult) -> ExitCode:
        summary = group.summary()
        tally = self._tally(group)
        if self.options["as_json"]:
            print_json(
                {"sent": self.sent.rows, **self._skipped_count(), **_became(summary, tally), "ids": group.ids}
            )
        elif self._prints_tables:
            self.terminal.say("", tally.as_table())
            show_errors(self.terminal, tally)
            self.terminal.say(verdict(summary))
        if not summary.is_final:
            self.terminal.warn(
                f"not all have ended after {self.options['timeout']:g} s. {self.sent.how_to_look()}"
            )
        return exit_code(summary)

    def _tally(self, group: AgentGroupResult) -> Tally:
        tally = Tally({task.agent_stage.uuid: task.agent_stage.title for task in self.tasks})
        tally.add(group.snapshots())
        return tally


def _became(summary: GroupSummary, tally: Tally) -> dict[str, Any]:
    return {**summary.as_dict(), "outcomes": tally.as_rows(), "errors": tally.errors_as_rows()}


def _until(hindrance: Hindrance) -> str:
    """Say for what a stage waits, without numbers that change: a log gets a line for each other text."""
    match hindrance.reason:
        case Reason.FULL:
            return f"until no more than {hindrance.goes_on_at:,} are in flight"
        case Reason.LOCKED:
            return "for another producer, which is sweeping it"
        case Reason.PAUSED:
            return "as long as Encord has asked for"
        case _:
            return str(hindrance)
