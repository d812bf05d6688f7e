"""The plain tasks of the visibility tests on workers that watch themselves, and commands that break such a worker.

The commands run in the event loop of the worker that gets them, and do what has been seen to happen after a connection
had blinked.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import bootsteps
from celery.worker.control import control_command
from kombu import Queue

from celery_agents.worker import stuck
from tests.visibility.tasks_app import app, note


def single_consumer_queue(name: str) -> Queue:
    """Return a queue of RabbitMQ's that gives all messages to one of its consumers."""
    return Queue(name, queue_arguments={"x-single-active-consumer": True})


app.conf.update(
    # RabbitMQ is shared: workers of other tests may have the same names, and must not get these commands.
    control_exchange=app.conf.task_default_queue,
    agents_stuck_after=float(os.environ.get("STUCK_AFTER", "1")),
    worker_prefetch_multiplier=int(os.environ.get("MULTIPLIER", "1")),
    worker_cancel_long_running_tasks_on_connection_loss=True,
)
if os.environ.get("SINGLE_CONSUMER"):
    app.conf.task_queues = [single_consumer_queue(app.conf.task_default_queue)]
stuck.install(app)


def _lose_consumers(c: Any) -> None:
    # At the channel, so that Celery goes on believing that it consumes.
    for tag in list(c.task_consumer._active_tags.values()):
        c.task_consumer.channel.basic_cancel(tag)


@control_command()  # type: ignore[untyped-decorator]  # celery ships no types
def lose_consumer(panel: Any) -> str:
    """Have the broker forget that this worker consumes."""
    _lose_consumers(panel.consumer)
    return "ok"


@control_command()  # type: ignore[untyped-decorator]
def lose_acknowledgements(panel: Any) -> str:
    """Have kombu believe that as many messages as may be are not acknowledged; one more is on its way already."""
    qos = panel.consumer.task_consumer.channel.qos
    qos._delivered.update({f"lost-{number}": None for number in range(qos.prefetch_count)})
    note.delay("on its way")
    return "ok"


@control_command()  # type: ignore[untyped-decorator]
def keeps_what_runs(panel: Any) -> bool:
    """Whether messages whose tasks run are kept when this connection is lost, see ``visibility.keep_what_runs``."""
    return "restore_unacked" in vars(panel.consumer.task_consumer.channel.qos)


@control_command()  # type: ignore[untyped-decorator]
def hang(panel: Any) -> None:
    """Have the event loop never go on."""
    time.sleep(600)


class Sabotage(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Loses the consumers of every connection, or of every later one."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    spared = 1 if os.environ.get("SABOTAGE") == "later" else 0

    def register_with_event_loop(self, c: Any, hub: Any) -> None:
        if self.spared:
            self.spared -= 1
        else:
            hub.call_soon(_lose_consumers, c)


if os.environ.get("SABOTAGE"):
    app.steps["consumer"].add(Sabotage)
