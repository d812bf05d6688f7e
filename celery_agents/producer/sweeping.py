"""Sweep stages once: ``sweep``."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any
from uuid import UUID

from celery_agents import waiting
from celery_agents.groups import AgentGroupResult
from celery_agents.producer.filters import TaskFilters
from celery_agents.producer.highwater import HighWater
from celery_agents.producer.options import Limit, SweepOptions
from celery_agents.producer.publishing import Sent, SweepableTask
from celery_agents.producer.reports import SentMessage, StageReport
from celery_agents.producer.stage import StageSweep
from celery_agents.sizes import BatchSize

#: Seconds between two looks at what stands in the way, at most.
LOOK_SECONDS = 0.25


def sweep(
    stage_tasks: Iterable[SweepableTask],
    *,
    batch_size: BatchSize | None = None,
    limit: int | None = None,
    filters: TaskFilters | None = None,
    max_in_flight: int | None = None,
    waits: bool = True,
    on_sent: Callable[[SentMessage], object] | None = None,
    on_skipped: Callable[[Mapping[UUID, str]], object] | None = None,
    on_waiting: Callable[[Sequence[StageReport]], object] | None = None,
    on_swept: Callable[[StageReport], object] | None = None,
    force: bool = False,
    sending: Callable[[], AbstractContextManager[object]] = nullcontext,
    **options: Any,
) -> AgentGroupResult:
    """Send every agent task that waits at these tasks' stages, and return the result to ask for what becomes of them.

    With a ledger, what another message has is left out, and only one producer sweeps a stage at a time: this one waits
    for another to end, and then sends what that one has not. It waits as well while Encord has asked for a pause, and
    for room under *max_in_flight*; other stages go on meanwhile.

    Args:
        stage_tasks: The Celery tasks of the stages, swept in this order.
        batch_size: Agent tasks in one message, or "auto"; by default the option of each stage.
        limit: How many agent tasks to send at most, over all stages. Those which were decided before, and stay at their
            stage because they were HELD or FAILED, come last then.
        filters: Which agent tasks; by default all.
        max_in_flight: How many agent tasks of each stage may be in flight. There it stops, and goes on when half of
            them are left. Needs a ledger.
        waits: Wait for what stands in the way. Otherwise the rest is left to the next sweep, which is near: this one
            does nothing without its ledger, and begins only at the low mark.
        on_sent: Called for each message, when the broker has it.
        on_skipped: Called with what was not sent because another message has it: agent task -> that message's id. Needs
            a ledger, as *force* does.
        on_waiting: Called with the reports of the stages that it waits for, at each look, a few times a second.
        on_swept: Called for each stage with what was sent and what was left out, when it is done or left.
        force: Send also what other messages have, whoever else is sweeping.
        sending: Entered while agent tasks are claimed, sent and told of, for who must not be interrupted there.
        options: Of Celery's ``apply_async``, for each message: ``queue``, ``priority``, ``countdown``, …

    Raises:
        SetupError: The stage is not there, or broker or result backend cannot be reached; what was sent stays sent.
        LedgerError: The ledger cannot be used, and is needed for *max_in_flight* or because it does not wait.
        EncordException: Encord cannot be reached, or refuses.
    """
    chosen = SweepOptions(
        batch_size=batch_size,
        filters=filters or TaskFilters(),
        force=force,
        repeats=not waits,
        new_first=limit is not None or (max_in_flight is not None and not waits),
        on_skipped=on_skipped,
        sending=sending,
        message=options,
    )
    tasks, shared = tuple(stage_tasks), Limit(limit)
    sweeps = [StageSweep(task, chosen, shared, _water(max_in_flight, waits=waits)) for task in tasks]
    app = tasks[0].app if tasks else None
    # Closed whatever happens: a sweep that is broken off gives its lock back then.
    with closing(_sent(sweeps, on_waiting, on_swept, waits=waits)) as sent:
        return AgentGroupResult(_told(sent, on_sent), app)


def _water(max_in_flight: int | None, *, waits: bool) -> HighWater | None:
    return None if max_in_flight is None else HighWater(max_in_flight, is_full=not waits)


def _told(sent: Iterator[Sent], on_sent: Callable[[SentMessage], object] | None) -> Iterator[Any]:
    for message, result in sent:
        if on_sent is not None:
            on_sent(message)
        yield result


def _sent(
    sweeps: Sequence[StageSweep],
    on_waiting: Callable[[Sequence[StageReport]], object] | None,
    on_swept: Callable[[StageReport], object] | None,
    *,
    waits: bool,
) -> Generator[Sent]:
    pauses = waiting.pauses(LOOK_SECONDS)
    while sweeps:
        for each in sweeps:
            with closing(each.advance()) as sending:
                for sent in sending:
                    pauses = waiting.pauses(LOOK_SECONDS)
                    yield sent
            if on_swept is not None and (each.is_done or not waits):
                on_swept(each.report)
        sweeps = [each for each in sweeps if not each.is_done and waits]
        if sweeps:
            if on_waiting is not None:
                on_waiting([each.report for each in sweeps])
            time.sleep(next(pauses))
