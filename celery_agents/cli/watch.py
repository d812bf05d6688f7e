"""``celery -A app agents watch``: follow queues and workers live."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
from celery import Celery
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from celery_agents.cli.completion import OUTCOME_STYLES, counts_text
from celery_agents.cli.declarations import agent_tasks
from celery_agents.cli.observer import Observer, QueueView, StageView
from celery_agents.cli.sentences import sentence
from celery_agents.cli.terminal import Terminal, celery_command, count, json_option, print_json, table
from celery_agents.cli.workers import nobody_listens, reach_broker
from celery_agents.messages import Outcome

#: Columns with numbers: of the queue, then of each stage.
NUMBERS = ("workers", "waiting", "running", "ended", *(outcome.lower() for outcome in Outcome), "per min")


@click.command("watch")
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Between two looks; workers have one to answer.",
)
@click.option("--once", is_flag=True, help="Look once, print, and end.")
@click.option(
    "--encord", "counts_at_encord", is_flag=True, help="Count what waits at Encord, too; reads every page."
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, interval: float, once: bool, counts_at_encord: bool, as_json: bool
) -> None:
    """Follow queues and workers: a live table on a terminal, a line per look elsewhere. Ctrl-C ends it.

    \b
    waiting, running, ended    messages (batches): in the queue, at a worker, and through since this command began
    proceeded, held, …         agent tasks in the messages that ended
    per minute                 agent tasks with an outcome

    What ended is counted where workers send events (celery worker -E, or worker_send_task_events = True) and a result
    backend is set.

    \b
    Examples:
      celery -A app agents watch
      celery -A app agents watch --once --json
      celery -A app agents watch --json --interval 10 >> agents.jsonl

    \b
    Exit codes:
      0  ended by Ctrl-C, or --once
      1  the broker was down at the start
    """  # noqa: D301 - click reads \b
    app = ctx.obj.app
    tasks = agent_tasks(app)
    reach_broker(app)
    observer = Observer(app, tasks, follows=not once, counts_at_encord=counts_at_encord)
    looks = _looks(app, observer, interval)
    if once:
        looks = itertools.islice(looks, 1)
    try:
        _show(ctx, looks, as_json=as_json, is_live=not once, with_encord=counts_at_encord)
    except KeyboardInterrupt:
        return


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment."""

    at: datetime
    queues: list[QueueView]
    problem: str | None = None  #: why nothing was seen, in one sentence
    lacks_events: bool = False  #: whether workers do not tell what ended

    def as_dict(self) -> dict[str, Any]:
        """This look as a JSON object."""
        return {
            "at": self.at.isoformat(timespec="seconds"),
            "problem": self.problem,
            "queues": [queue.as_dict() for queue in self.queues],
        }


def _looks(app: Celery, observer: Observer, interval: float) -> Iterator[Look]:
    """Look for ever, every *interval* seconds at most; what is down now may be back at the next look."""
    while True:
        began = time.monotonic()
        at = datetime.now(UTC)
        try:
            reach_broker(app)
            yield Look(at, observer.look(), lacks_events=observer.lacks_events)
        except Exception as error:
            problem = sentence(error, app)
            if problem is None:
                raise
            yield Look(at, [], problem)
        time.sleep(max(0.0, began + interval - time.monotonic()))


def _show(
    ctx: click.Context, looks: Iterator[Look], *, as_json: bool, is_live: bool, with_encord: bool
) -> None:
    terminal = Terminal.of(ctx)
    worker = celery_command(ctx, "worker")
    if as_json:
        for look in looks:
            print_json(look.as_dict(), indent=None)
    elif not is_live:
        for look in looks:
            terminal.say(_rendered(look, worker, with_encord))
    elif terminal.out.is_terminal:
        with Live(console=terminal.out, auto_refresh=False) as live:
            for look in looks:
                live.update(_rendered(look, worker, with_encord), refresh=True)
    else:
        for look in looks:
            terminal.say(_line(look))


def _rendered(look: Look, worker: str, with_encord: bool) -> RenderableType:
    if look.problem:
        return Text(look.problem, "red")
    columns = ("queue", "stage", *NUMBERS, *(["at Encord"] if with_encord else []))
    rows = [_cells(queue, stage, with_encord) for queue in look.queues for stage in queue.stages]
    notes = [Text(note, "yellow") for note in _notes(look, worker)]
    return Group(table(columns, rows, right=columns[2:]), *notes)


def _cells(queue: QueueView, stage: StageView, with_encord: bool) -> list[object]:
    # What is the queue's is shown once, beside the first of the stages that share it.
    is_first = stage is queue.stages[0]
    workers = None if queue.workers is None else len(queue.workers)
    shared: list[object] = [_number(workers), _number(queue.waiting)] if is_first else ["", ""]
    counts = [None if stage.outcomes is None else stage.outcomes[outcome] for outcome in Outcome]
    own = [
        _number(stage.running),
        _number(stage.ended),
        *map(_outcome_number, Outcome, counts),
        stage.per_minute,
    ]
    at_encord = [_number(stage.at_encord)] if with_encord else []
    return [queue.queue if is_first else "", stage.stage, *shared, *own, *at_encord]


def _number(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"


def _outcome_number(outcome: Outcome, number: int | None) -> Text | str | None:
    return Text(f"{number:,}", OUTCOME_STYLES[outcome]) if number else _number(number)


def _notes(look: Look, worker: str) -> Iterator[str]:
    missing = [queue.queue for queue in look.queues if queue.workers == []]
    if missing:
        told = nobody_listens(missing, worker)
        yield told[0].upper() + told[1:]
    if look.lacks_events:
        yield f"Workers do not tell what ended; start them with events: {worker} -E"


def _line(look: Look) -> str:
    seen = look.problem or " | ".join(map(_queue_text, look.queues))
    return f"{look.at.astimezone():%H:%M:%S}  {seen}"


def _queue_text(queue: QueueView) -> str:
    workers = (
        ""
        if queue.workers is None
        else f", {count(len(queue.workers), 'worker') if queue.workers else 'no worker'}"
    )
    stages = "; ".join(map(_stage_text, queue.stages))
    return f"{queue.queue}: {queue.waiting:,} waiting{workers}; {stages}"


def _stage_text(stage: StageView) -> str:
    counts = counts_text(stage.outcomes) if stage.outcomes else ""
    parts = [
        None if stage.running is None else f"{stage.running:,} running",
        None if stage.ended is None else f"{stage.ended:,} ended" + (f" ({counts})" if counts else ""),
        None if stage.per_minute is None else f"{stage.per_minute:g}/min",
        None if stage.at_encord is None else f"{stage.at_encord:,} at Encord",
    ]
    return f"{stage.stage} {', '.join(part for part in parts if part)}"
