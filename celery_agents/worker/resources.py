"""What agents keep for a whole worker process, ``Depends(…, scope="worker")``: when it is loaded, and cleaned up.

It is loaded by the first agent task that needs it or, with ``warm=True``, by each process before its first message:
in a pool of processes after the fork, and never in their parent. It is cleaned up when the process ends in good order:
as the worker stops, or after ``worker_max_tasks_per_child`` messages; a process that is killed cleans up nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import Celery, bootsteps, current_app
from celery.utils.log import get_logger

from celery_agents import providers
from celery_agents.dependencies import resources
from celery_agents.dependencies.plan import Plan
from celery_agents.dependencies.resolve import obtain_kept
from celery_agents.redaction import redact
from celery_agents.task import StageTask

logger = get_logger(__name__)

#: Seconds in which a pool process must have loaded what is to be there before its first message. Celery kills one that
#: is not up within ``worker_proc_alive_timeout``, whose default of 4 s is no time for a model.
WARMING_SECONDS = 600.0


def on_worker_init(sender: Any, **_: Any) -> None:
    """Give the processes of a worker time to load, where there is something to be loaded."""
    app = sender.app
    if next(_to_warm(app), None):
        app.conf.worker_proc_alive_timeout = max(app.conf.worker_proc_alive_timeout, WARMING_SECONDS)
        app.steps["worker"].add(Warming)


def on_worker_process_init(**_: Any) -> None:
    """Load in a process that begins."""
    warm(current_app)


def on_worker_process_shutdown(**_: Any) -> None:
    """Clean up in a process that ends."""
    resources.close()


def on_worker_shutdown(**_: Any) -> None:
    """Clean up in a worker that has run its agents itself."""
    resources.close()


class Warming(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Warms a worker that runs its agents in its own process, as pools of threads and of greenlets do."""

    requires = ("celery.worker.components:Pool",)  # and the consumer comes last

    def start(self, worker: Any) -> None:
        """Load before the consumer fetches anything."""
        # Here, because the worker chooses which pools it imports.
        from celery.concurrency.prefork import TaskPool

        if not isinstance(worker.pool, TaskPool):
            warm(worker.app)


def warm(app: Celery) -> None:
    """Load in this process what the agents of its worker have there before their first message.

    What cannot be loaded is logged, and tried again by the first agent task that needs it.
    """
    for task, plan in _to_warm(app):
        try:
            values = (
                providers.shared_values(plan.needs, task.runner.gateway, task.agent_stage)
                if plan.needs
                else {}
            )
            obtain_kept(plan, values)
        except Exception as error:  # noqa: BLE001  (whatever loads a model raises)
            logger.warning(
                "%s could not be loaded yet (%s: %s); the first agent task that needs it tries again.",
                getattr(plan.function, "__name__", plan.function),
                type(error).__name__,
                redact(str(error)),
            )


def _to_warm(app: Celery) -> Iterator[tuple[StageTask, Plan]]:
    consumed = app.amqp.queues.consume_from
    for task in app.tasks.values():
        if isinstance(task, StageTask) and task.queue_name in consumed:
            for plan in task.stage_agent.agent.plan.warm():
                yield task, plan
