"""Sweep stages from Celery's beat: a small task that a worker runs, and the entry that makes beat send it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from celery import Celery, Task, shared_task
from celery.utils.log import get_task_logger

from celery_agents import stopping
from celery_agents.errors import DeclarationError, SetupError
from celery_agents.producer.continuous import require_ledger
from celery_agents.producer.filters import TaskFilters
from celery_agents.producer.highwater import HighWater
from celery_agents.producer.options import Limit, SweepOptions
from celery_agents.producer.outages import Outages
from celery_agents.producer.reports import SentMessage, SweepReport
from celery_agents.producer.stage import StageSweep
from celery_agents.sizes import AUTO, BatchSize
from celery_agents.task import StageTask
from celery_agents.watch import SHARE_OF_TIME_LIMIT

logger = get_task_logger(__name__)


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

    def sweep(
        self,
        *,
        stages: Sequence[str] = (),
        batch_size: BatchSize | None = None,
        limit: int | None = None,
        filters: Mapping[str, Any] | None = None,
        max_in_flight: int | None = None,
        on_sent: Callable[[SentMessage], object] = lambda _: None,
    ) -> dict[str, Any]:
        """Sweep the stages once, and return what was sent and left out, which is logged as well.

        Raises:
            SetupError: A stage has no agent here, or is not there; there is no ledger; an option cannot be used.
        """
        tasks = self.stage_tasks(stages)
        require_ledger(tasks)
        options = SweepOptions(
            batch_size=batch_size,
            filters=TaskFilters(**(filters or {})),
            repeats=True,
            new_first=limit is not None or max_in_flight is not None,
            is_stopping=self._stop_sign(),
        )
        shared = Limit(limit)
        sweeps = [StageSweep(task, options, shared, _water(max_in_flight)) for task in tasks]
        for each in sweeps:
            each.try_to_advance(on_sent)
        report = SweepReport([each.report for each in sweeps])
        _log(report)
        for each in sweeps:
            if isinstance(each.report.error, SetupError) and not each.is_found:
                raise each.report.error
        return report.as_dict()

    def _stop_sign(self) -> Callable[[], bool]:
        """Return what tells to leave the rest: the worker stops, or the time limit is near."""
        _, soft = self.request.timelimit or (None, None)
        limit = soft or self.soft_time_limit
        ends_at = time.monotonic() + limit * SHARE_OF_TIME_LIMIT if limit else math.inf
        return lambda: stopping.is_stopping() or time.monotonic() > ends_at


def _water(max_in_flight: int | None) -> HighWater | None:
    # Nothing is remembered from beat to beat, whoever runs them.
    return None if max_in_flight is None else HighWater(max_in_flight, is_full=True)


#: What this process has told of. Several processes take turns, so an outage is told by each.
_outages = Outages()


def _log(report: SweepReport) -> None:
    for sentence in _outages.news(report):
        logger.warning(sentence)
    logger.info("Swept: %s", report.as_line())


def _run(self: SweepTask, **options: Any) -> dict[str, Any]:
    """Send what waits at the agent stages to the workers."""
    return self.sweep(**options)


def name_of(project_hash: UUID) -> str:
    """Return the Celery name of a project's sweep task; an agent's has those digits in the place of "sweep"."""
    return f"agents.sweep.{str(project_hash)[:8]}"


def register(app: Celery | None, project_hash: UUID) -> None:
    """Make the sweep task of a project known to *app*, or to every app; one that is known stays."""
    register_task(app, _run, base=SweepTask, name=name_of(project_hash), project_hash=project_hash)


def register_task(app: Celery | None, run: Callable[..., Any], **options: Any) -> None:
    """Make a task of a project's runner known to *app*; without one to every app, as ``shared_task`` does."""
    if app is None:
        shared_task(run, bind=True, **options)
    else:
        app.task(run, shared=False, bind=True, **options)


def entry(
    project_hash: UUID,
    every: float,
    *,
    stages: Sequence[str | UUID] = (),
    batch_size: BatchSize | None = None,
    limit: int | None = None,
    filters: TaskFilters | None = None,
    max_in_flight: int | None = None,
    queue: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the entry for ``beat_schedule``, see ``QueueRunner.beat_schedule``.

    Raises:
        DeclarationError: A number is not positive.
    """
    if not every > 0:
        raise DeclarationError(
            f"beat_schedule(every={every!r}): give the seconds from one sweep to the next."
        )
    for number in (None if batch_size == AUTO else batch_size, limit, max_in_flight):
        if number is not None and number < 1:
            raise DeclarationError(
                f"beat_schedule: batch_size, limit and max_in_flight are 1 or more, not {number!r}."
            )
    name, titles = name_of(project_hash), [str(stage) for stage in stages]
    given = {
        "stages": titles,
        "filters": filters.as_dict() if filters else None,
        "batch_size": batch_size,
        "limit": limit,
        "max_in_flight": max_in_flight,
    }
    return {
        " ".join([name, *titles]): {
            "task": name,
            "schedule": float(every),
            "kwargs": {key: value for key, value in given.items() if value not in (None, [])},
            # A sweep that nobody ran in time is superseded by the next: none pile up while no worker runs.
            "options": {"expires": float(every), **({"queue": queue} if queue else {})},
        }
    }
