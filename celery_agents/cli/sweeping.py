"""``agents enqueue --every``: sweep again and again, and tell of each sweep on one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import click

from celery_agents.cli.sent import warn_if_nobody_listens
from celery_agents.cli.sentences import reason, sentence
from celery_agents.cli.signals import Interruption, TerminatedError
from celery_agents.cli.terminal import Terminal, print_json
from celery_agents.producer import continuous
from celery_agents.producer.options import SweepOptions
from celery_agents.producer.outages import Outages
from celery_agents.producer.reports import Reason, SweepReport
from celery_agents.redaction import redact
from celery_agents.task import StageTask

#: What is printed of each sweep.
Prints = Literal["lines", "json", "ids"]


def sweep_every(
    ctx: click.Context,
    tasks: Sequence[StageTask],
    every: float,
    options: SweepOptions,
    *,
    limit: int | None,
    max_in_flight: int | None,
    prints: Prints,
) -> None:
    """Sweep until SIGTERM, which returns, or Ctrl-C, which raises KeyboardInterrupt.

    Args:
        ctx: The command's.
        tasks: Of the stages.
        every: Seconds from one sweep to the next.
        options: How to sweep.
        limit: How many agent tasks in each sweep.
        max_in_flight: How many agent tasks of each stage may be in flight.
        prints: What.

    Raises:
        SetupError: At first: there is no ledger, the key is wrong, a stage is not there.
    """
    teller = _Teller(ctx, prints)
    with Interruption() as interruption:
        try:
            for report in continuous.reports(
                tasks,
                every,
                replace(options, repeats=True, sending=interruption.held_off),
                limit=limit,
                max_in_flight=max_in_flight,
                keeps_ids=prints != "lines",
            ):
                teller.tell(report)
        except TerminatedError:
            teller.say_goodbye()


@dataclass
class _Teller:
    """Prints reports: results to stdout, what goes wrong to stderr, when it begins and when it is over."""

    ctx: click.Context
    prints: Prints
    outages: Outages = field(default_factory=Outages)
    asked_for: set[str] = field(default_factory=set)  #: queues whose workers were asked for

    @property
    def _terminal(self) -> Terminal:
        return Terminal.of(self.ctx)

    def tell(self, report: SweepReport) -> None:
        """Print what there is to tell."""
        for news in self.outages.news(report, self._explain):
            self._terminal.warn(news)
        ids = [id_ for stage in report.stages for id_ in stage.ids]
        if self.prints == "json":
            print_json({**report.as_dict(self._explain), "ids": ids}, indent=None)
        elif self.prints == "ids":
            click.echo("\n".join(ids), nl=bool(ids))
        elif report.messages or not all(stage.error for stage in report.stages):
            line = report.as_line(lambda _: "see the warning")
            # Not through the console, which would break it at the width of a log.
            click.echo(redact(f"{report.at.astimezone():%Y-%m-%d %H:%M:%S}  {line}"))
        self._warn_where_nobody_listens(report)

    def _explain(self, error: Exception) -> str:
        return sentence(error, self.ctx.obj.app) or f"{type(error).__name__}: {reason(error)}"

    def _warn_where_nobody_listens(self, report: SweepReport) -> None:
        """Once for each queue that is full: without workers it stays so."""
        full = {
            each.queue for each in report.stages if each.hindrance and each.hindrance.reason is Reason.FULL
        }
        queues, self.asked_for = full - self.asked_for, self.asked_for | full
        if queues:
            warn_if_nobody_listens(self.ctx, self._terminal, queues)

    def say_goodbye(self) -> None:
        """Say what a stop means."""
        self._terminal.note("Told to stop: what was begun has been sent, and the rest waits at its stage.")
