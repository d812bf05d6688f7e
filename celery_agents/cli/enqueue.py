"""``celery -A app agents enqueue``: send what waits at agent stages to the workers, once or again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from celery_agents.cli.declarations import agent_tasks, chosen
from celery_agents.cli.sending import OneSweep
from celery_agents.cli.signals import TerminatedError
from celery_agents.cli.sweeping import sweep_every
from celery_agents.cli.terminal import json_option
from celery_agents.producer.filters import TASK_STATUSES, TaskFilters
from celery_agents.producer.options import SweepOptions
from celery_agents.sizes import AUTO, BatchSize
from celery_agents.task import StageTask

#: The shell's for what ended by SIGTERM.
TERMINATED = 143


def _batch_size(ctx: click.Context, param: click.Parameter, value: str | None) -> BatchSize | None:
    size: BatchSize | None = AUTO if value == AUTO else click.IntRange(min=1)(value, param, ctx)
    return size


@click.command("enqueue")
@click.option(
    "--stage", "stages", multiple=True, metavar="STAGE", help="Title or UUID, as declared; repeatable. [all]"
)
@click.option(
    "--batch-size",
    callback=_batch_size,
    metavar="N|auto",
    help='Agent tasks per message; "auto" follows the time that agents take. [the stage\'s own]',
)
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
@click.option(
    "--max-in-flight",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop where N agent tasks of a stage are in flight, go on at half of them.",
)
@click.option(
    "--every", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Sweep again and again."
)
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

    With a ledger (the setting agents_ledger_url, or a Redis as broker or result backend) nothing is sent that another
    message has; what was left out is told. --force takes it away from those messages: what they are running is then
    not committed. One producer sweeps a stage at a time, and others wait for it, but for --force.

    --max-in-flight keeps the queue short, and --every keeps it filled. Both need the ledger. With --every a stage that
    another producer sweeps is left to it; what goes wrong is told once when it begins and once when it is over; --limit
    holds for each sweep; and each sweep prints one line.

    \b
    Examples:
      celery -A app agents enqueue
      celery -A app agents enqueue --stage "Pre-label" --limit 10 --wait
      celery -A app agents enqueue --title cat --status NEW --json
      celery -A app agents enqueue --every 60 --max-in-flight 1000
      celery -A app agents enqueue --ids > ids.txt; celery -A app agents status - < ids.txt

    \b
    Exit codes:
      0    sent, or nothing waits; with --wait: all have ended, and nothing failed; with --every: stopped by SIGTERM
      1    could not be sent; with --wait: something FAILED; with --every: wrong key, project or stage
      2    wrong usage
      3    --timeout has passed, and not all have ended
      130  Ctrl-C; what was sent goes on
      143  SIGTERM, without --every; what was sent goes on
    """  # noqa: D301 - click reads \b
    tasks = chosen(agent_tasks(ctx.obj.app), options["stages"])
    if options["every"] is not None:
        _sweep_every(ctx, tasks, options)
        return
    sweep = OneSweep(ctx, tasks, _filters(options), options)
    try:
        group = sweep.send()
    except TerminatedError:
        ctx.exit(TERMINATED)
    if not len(group):
        sweep.say_nothing_was_sent()
        return
    sweep.say_what_was_sent()
    if sweep.is_waiting:
        ctx.exit(sweep.wait(group))


def _sweep_every(ctx: click.Context, tasks: Sequence[StageTask], options: Mapping[str, Any]) -> None:
    for name, option in (("waits", "--wait"), ("timeout", "--timeout"), ("force", "--force")):
        if options[name] not in (None, False):
            raise click.UsageError(f"--every sweeps again and again, so it does not go with {option}.")
    sweep_every(
        ctx,
        tasks,
        options["every"],
        SweepOptions(batch_size=options["batch_size"], filters=_filters(options)),
        limit=options["limit"],
        max_in_flight=options["max_in_flight"],
        prints="json" if options["as_json"] else "ids" if options["prints_ids"] else "lines",
    )


def _filters(options: Mapping[str, Any]) -> TaskFilters:
    # An empty filter of TaskFilters lets nothing through; an option that was not given lets everything.
    return TaskFilters(
        status=options["status"] or None,
        data_title=options["title"],
        data_hash=options["data_hash"] or None,
        dataset_hash=options["dataset_hash"] or None,
        assignee=options["assignee"] or None,
    )
