"""Sweep stages from Celery's beat: a small task that a worker runs, and the entry that makes beat send it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

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
from celery_agents.producer.tasks import SweepTask, name_of
from celery_agents.sizes import AUTO, BatchSize
from celery_agents.watch import SHARE_OF_TIME_LIMIT

logger = get_task_logger(__name__)


def sweep(
    task: SweepTask,
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
    tasks = task.stage_tasks(stages)
    require_ledger(tasks)
    options = SweepOptions(
        batch_size=batch_size,
        filters=TaskFilters(**(filters or {})),
        repeats=True,
        new_first=limit is not None or max_in_flight is not None,
        is_stopping=_stop_sign(task),
    )
    shared = Limit(limit)
    sweeps = [StageSweep(each, options, shared, _water(max_in_flight)) for each in tasks]
    for each in sweeps:
        each.try_to_advance(on_sent)
    report = SweepReport([each.report for each in sweeps])
    _log(report)
    for each in sweeps:
        if isinstance(each.report.error, SetupError) and not each.is_found:
            raise each.report.error
    return report.as_dict()


def _stop_sign(task: SweepTask) -> Callable[[], bool]:
    """Return what tells to leave the rest: the worker stops, or the time limit is near."""
    _, soft = task.request.timelimit or (None, None)
    limit = soft or task.soft_time_limit
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
