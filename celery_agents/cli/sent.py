"""What a command has sent, and whether anybody will take it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from celery_agents.cli.terminal import Terminal, celery_command, count
from celery_agents.cli.workers import nobody_listens, unheard
from celery_agents.producer.reports import SentMessage
from celery_agents.task import StageTask

#: Ids that the follow-up command names; more would fill the screen.
IDS_IN_HINT = 3


class Sent:
    """The ids of messages that were sent, and how many agent tasks of which stage they carry.

    Args:
        ctx: The command's.
        tasks: The Celery tasks to which messages go.
    """

    def __init__(self, ctx: click.Context, tasks: Sequence[StageTask]) -> None:
        self._ctx = ctx
        self._queues = {task.name: task.queue_name for task in tasks}
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.ids: list[str] = []
        self.agent_tasks = 0

    def add(self, message: SentMessage) -> None:
        """Note a message."""
        self.ids.append(message.id)
        self.agent_tasks += message.size
        row = self._rows.setdefault((message.stage, message.task), self._new_row(message))
        row["agent_tasks"] += message.size
        row["messages"] += 1

    def _new_row(self, message: SentMessage) -> dict[str, Any]:
        queue = self._queues.get(message.task)
        return {
            "stage": message.stage,
            "task": message.task,
            "queue": queue,
            "agent_tasks": 0,
            "messages": 0,
        }

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One JSON object for each stage of which something was sent."""
        return list(self._rows.values())

    def __str__(self) -> str:
        return f"{count(self.agent_tasks, 'agent task')} in {count(len(self.ids), 'message')}"

    def how_to_look(self) -> str:
        """Say by which command it can be followed."""
        if len(self.ids) > IDS_IN_HINT:
            return f"Follow it: {celery_command(self._ctx, 'agents watch')}"
        status = celery_command(self._ctx, f"agents status {' '.join(self.ids)}")
        return f"What became of it: {status}"


def warn_if_nobody_listens(ctx: click.Context, terminal: Terminal, queues: Iterable[str]) -> None:
    """Warn if no worker takes what waits in *queues*."""
    app = ctx.obj.app
    missing = [] if app.conf.task_always_eager else unheard(app, queues)
    if missing:
        terminal.warn(f"messages wait: {nobody_listens(missing, celery_command(ctx, 'worker'))}")
