"""The agent of ``light_app`` on a worker that believes it consumes and does not, and stays so until it was asked."""

from __future__ import annotations

from typing import Any

from celery import bootsteps

from celery_agents.worker.lookout import Lookout
from tests.cli.light_app import app

app.conf.agents_stuck_after = 1


def lose_consumers(c: Any) -> None:
    for tag in list(c.task_consumer._active_tags.values()):
        c.task_consumer.channel.basic_cancel(tag)


class Sabotage(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Takes the consumers off the channel of every connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def register_with_event_loop(self, c: Any, hub: Any) -> None:
        hub.call_soon(lose_consumers, c)


def stay(self: Lookout) -> None:
    """Do not exit: a test could not tell how long it has to ask."""


app.steps["consumer"].add(Sabotage)
Lookout._exit = stay  # type: ignore[method-assign]
