"""``celery -A app agents stages``: the project's agent stages, and which agent serves each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click
from rich.text import Text

from celery_agents.cli.declarations import agent_tasks, function_path
from celery_agents.cli.terminal import Terminal, json_option, print_json, table
from celery_agents.sizes import BatchSize
from celery_agents.task import StageTask

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.gateway.project import Gateway
    from celery_agents.runner import QueueRunner

COLUMNS = ("stage", "agent", "queue", "batch", "pathways")


@dataclass(frozen=True, slots=True)
class StageRow:
    """One agent stage, and its agent where there is one."""

    stage: str
    uuid: str
    pathways: dict[str, str]  #: name -> title of the stage that it leads to
    agent: str | None = None  #: import path of the function
    task: str | None = None  #: Celery's name
    queue: str | None = None
    batch_size: BatchSize | None = None
    waiting: int | None = None  #: agent tasks, where they were counted


@click.command("stages")
@click.option("--count", "counts", is_flag=True, help="Count what waits; reads every page of each stage.")
@json_option
@click.pass_context
def command(ctx: click.Context, counts: bool, as_json: bool) -> None:
    """List the agent stages of the project, with the agent that serves each.

    A stage without an agent is listed too: its agent tasks wait until somebody takes them.

    \b
    Examples:
      celery -A app agents stages
      celery -A app agents stages --count
      celery -A app agents stages --json | jq -r '.[].stages[].task'

    \b
    Exit codes:
      0  listed
      1  the key, the project or a declared stage is wrong
    """  # noqa: D301 - click reads \b
    tasks = agent_tasks(ctx.obj.app)
    runners = {id(task.runner): task.runner for task in tasks}
    listed = [(runner, list(_rows(runner, tasks, counts))) for runner in runners.values()]
    if as_json:
        print_json([_document(runner, rows) for runner, rows in listed])
        return
    terminal = Terminal.of(ctx)
    for runner, rows in listed:
        terminal.say(
            Text.assemble((runner.gateway.project.title, "bold"), (f"  {runner.project_hash}", "dim"))
        )
        columns = (*COLUMNS, *(["waiting"] if counts else []))
        terminal.say(table(columns, [_cells(row, counts) for row in rows], right=("batch", "waiting")))


def _rows(runner: QueueRunner, tasks: Sequence[StageTask], counts: bool) -> Iterator[StageRow]:
    gateway = runner.gateway
    titles = {stage.uuid: stage.title for stage in gateway.project.workflow.stages}
    # Asking each task for its stage names the nearest where one is misspelt.
    serving = {task.agent_stage.uuid: task for task in tasks if task.runner is runner}
    for stage in gateway.agent_stages():
        task = serving.get(stage.uuid)
        yield StageRow(
            stage=stage.title,
            uuid=str(stage.uuid),
            pathways={each.name: titles.get(each.destination_uuid, "?") for each in stage.pathways},
            agent=function_path(task) if task else None,
            task=task.name if task else None,
            queue=task.queue_name if task else None,
            batch_size=task.stage_agent.options.batch_size if task else None,
            waiting=_waiting(gateway, stage) if counts else None,
        )


def _waiting(gateway: Gateway, stage: AgentStage) -> int:
    return sum(1 for _ in gateway.list_specs(stage))


def _document(runner: QueueRunner, rows: Sequence[StageRow]) -> dict[str, object]:
    return {
        "project": runner.gateway.project.title,
        "project_hash": runner.project_hash,
        "stages": [asdict(row) for row in rows],
    }


def _cells(row: StageRow, counts: bool) -> list[object]:
    agent = (
        Text(f"{row.agent}\n").append(row.task or "", "dim") if row.agent else Text("no agent here", "yellow")
    )
    pathways = "\n".join(f"{name} → {destination}" for name, destination in row.pathways.items())
    stage = Text(f"{row.stage}\n").append(row.uuid, "dim")
    cells: list[object] = [stage, agent, row.queue, row.batch_size, pathways or None]
    return [*cells, f"{row.waiting:,}"] if counts else cells
