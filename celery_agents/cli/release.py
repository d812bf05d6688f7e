"""``celery -A app agents release``: give back what messages claim that are no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from celery_agents.cli.books import books
from celery_agents.cli.terminal import Terminal, count, json_option, print_json


@click.command("release")
@click.option(
    "--stage", "stages", multiple=True, metavar="STAGE", help="Title or UUID, as declared; repeatable. [all]"
)
@click.option("--running", "also_running", is_flag=True, help="Also what workers have taken over; see above.")
@json_option
@click.pass_context
def command(ctx: click.Context, stages: Sequence[str], also_running: bool, as_json: bool) -> None:
    """Release the claims of messages that wait in their queue, after that queue was purged.

    `agents enqueue` leaves out what other messages have. Messages that were purged still have theirs, for a day; this
    command gives them back, so that the next sweep sends those agent tasks at once. If such a message is in its queue
    after all, nothing is lost: its agent tasks may be sent twice, and whichever message runs first has them.

    With --running also what workers have taken over is released. DANGER: a worker that is at it does not commit what
    it has released, so that its work is lost and done again by the next sweep. Use it only when no worker is alive.

    Needs a ledger: the setting agents_ledger_url.

    \b
    Examples:
      celery -A app purge -Q gpu && celery -A app agents release
      celery -A app agents release --stage "Pre-label"
      celery -A app agents release --running          all workers are gone

    \b
    Exit codes:
      0  released, or there was nothing to release
      1  there is no ledger, or it cannot be reached, or a stage is not there
      2  wrong usage
    """  # noqa: D301 - click reads \b
    released: list[dict[str, Any]] = [
        {
            "stage": str(task.stage_agent.stage),
            "stage_uuid": stage,
            "agent_tasks": book.ledger.release_all(stage, queued_only=not also_running),
        }
        for book in books(ctx.obj.app, stages)
        for stage, task in book.by_stage.items()
    ]
    if as_json:
        print_json({"released": released})
        return
    terminal = Terminal.of(ctx)
    for row in released:
        terminal.say(f"Released {count(row['agent_tasks'], 'agent task')} at {row['stage']}.")
