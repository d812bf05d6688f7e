"""The Celery tasks that sweep, as whoever sends to them knows them; ``beat`` and ``asked`` are what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from celery import Task

from celery_agents.errors import LedgerError, SetupError
from celery_agents.task import StageTask

#: How often in a row a sweep is tried again that an error has broken off, and after how many seconds at first and at
#: most: in all some seven minutes, in which Encord's webhook has notified again.
MOST_TRIES, FIRST_PAUSE, LONGEST_PAUSE = 10, 5.0, 60.0


class SweepTask(Task):  # type: ignore[misc]  # celery ships no types
    """The Celery task that sweeps the stages of one project once, and waits for nothing."""

    abstract = True
    project_hash: UUID

    # What it would report is in the log; what it did not get to is swept at the next beat, so there is no need to
    # run it again.
    ignore_result = True
    acks_late = False
    track_started = False

    def stage_tasks(self, stages: Sequence[str]) -> list[StageTask]:
        """Return the tasks of the project's agents that are declared in this process; of *stages*, or all.

        Raises:
            SetupError: A stage has none.
        """
        tasks = [
            task
            for task in self.app.tasks.values()
            if isinstance(task, StageTask) and task.runner.project_hash == self.project_hash
        ]
        by_stage = {str(task.stage_agent.stage): task for task in tasks}
        unknown = [stage for stage in stages if stage not in by_stage]
        if unknown:
            declared = ", ".join(map(repr, by_stage)) or "none"
            raise SetupError(f"No agent is declared for stage {unknown[0]!r}; declared are: {declared}.")
        return [by_stage[stage] for stage in stages] if stages else tasks

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send a message, see ``celery.Task.apply_async``.

        Where neither *options* nor ``task_routes`` say to which queue, it goes to that of the first stage that is to
        be swept: its worker is there, while nobody may listen to the default queue.
        """
        if not options.keys() & {"queue", "exchange", "routing_key"} and not self._is_routed():
            tasks = self.stage_tasks((kwargs or {}).get("stages", ()))
            options |= {"queue": tasks[0].queue_name} if tasks else {}
        return super().apply_async(args, kwargs, **options)

    def _is_routed(self) -> bool:
        # celery.app.routes.Router: `route` would add the default queue.
        return bool(self.app.amqp.router.lookup_route(self.name, (), {}, {}, self))


class AskedSweepTask(SweepTask):
    """The Celery task that sweeps the one stage of which that was asked; its result tells what was sent."""

    abstract = True
    ignore_result = False
    # Nobody may ask again soon: it is run again if its worker dies, and if the ledger cannot be used.
    acks_late = True
    reject_on_worker_lost = True
    autoretry_for = (LedgerError,)
    retry_backoff = FIRST_PAUSE
    retry_backoff_max = LONGEST_PAUSE
    max_retries = MOST_TRIES


def name_of(project_hash: UUID) -> str:
    """Return the Celery name of a project's sweep task; an agent's has those digits in the place of "sweep"."""
    return f"agents.sweep.{str(project_hash)[:8]}"


def name_of_asked(project_hash: UUID) -> str:
    """Return the Celery name of the other one; where ``task_routes`` name the sweeps of beat, they name it too."""
    return f"{name_of(project_hash)}.asked"
