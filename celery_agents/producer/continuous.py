"""Sweep again and again: on schedule, through outages, one at a time, and without keeping what was sent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial

from celery_agents.errors import SetupError
from celery_agents.producer.highwater import HighWater
from celery_agents.producer.options import Limit, SweepOptions
from celery_agents.producer.publishing import SweepableTask
from celery_agents.producer.reports import Reason, SentMessage, SweepReport
from celery_agents.producer.stage import StageSweep
from celery_agents.producer.sweeping import LOOK_SECONDS

#: Longest pause between two tries of a stage that could not be swept, unless sweeps are farther apart anyway.
LONGEST_BACKOFF = 60.0
#: What passes between two sweeps; the other hindrances are looked at when it is time for the next one.
_PASSING = (Reason.FULL, Reason.PAUSED)


def reports(
    tasks: Sequence[SweepableTask],
    every: float,
    options: SweepOptions,
    *,
    limit: int | None = None,
    max_in_flight: int | None = None,
    keeps_ids: bool = False,
) -> Generator[SweepReport]:
    """Sweep stages every so many seconds, for ever; yield after each sweep what was sent since the last report.

    A stage at its high-water mark goes on as soon as it may, and where it stopped: a sweep that began again at the
    first page would meet those agent tasks there that stay, because their agent holds them or fails. A stage that
    another producer sweeps is left to it until the next time.

    What fails is tried again at the next time, and later after each failure, up to ``LONGEST_BACKOFF``.

    Args:
        tasks: The Celery tasks of the stages.
        every: Seconds from one sweep to the next, however long each takes; times that have passed are left out.
        options: How they are swept.
        limit: How many agent tasks each sweep may send, over all stages.
        max_in_flight: How many agent tasks of each stage may be in flight.
        keeps_ids: Tell the ids of the messages in the reports.

    Raises:
        SetupError: There is no ledger, an option cannot be used, or a stage is not there and never was.
    """
    require_ledger(tasks)
    shared = Limit(limit)
    stages = [
        _Stage(partial(StageSweep, task, options, shared, _water(max_in_flight)), every, keeps_ids=keeps_ids)
        for task in tasks
    ]
    for next_time in _times(every):
        shared.reset()
        tried = [stage for stage in stages if stage.is_due()]
        for stage in tried:
            stage.advance()
        told = [stage.report.taken() for stage in stages if stage in tried or stage.report.has_news()]
        if told:
            yield SweepReport(told)
        _go_on_until(next_time, stages)


def require_ledger(tasks: Sequence[SweepableTask]) -> None:
    """Raise SetupError where one of *tasks* has no ledger."""
    if any(task.runner.ledger is None for task in tasks):
        raise SetupError(
            "Sweeping again and again needs a ledger, or each sweep would send once more what still waits in the "
            "queue: set agents_ledger_url to a Redis or Valkey."
        )


def _water(max_in_flight: int | None) -> HighWater | None:
    return None if max_in_flight is None else HighWater(max_in_flight)


def _times(every: float, clock: Callable[[], float] = time.monotonic) -> Iterator[float]:
    """Yield, when it is time for a sweep, the time of the next one: a multiple of *every* after the first."""
    started = clock()
    while True:
        yield started + (math.floor((clock() - started) / every) + 1) * every


def _go_on_until(next_time: float, stages: Sequence[_Stage]) -> None:
    while (left := next_time - time.monotonic()) > 0:
        held_up = [stage for stage in stages if stage.is_held_up()]
        time.sleep(min(left, LOOK_SECONDS) if held_up else left)
        for stage in held_up:
            stage.advance()


class _Stage:
    """A stage, from one time to the next."""

    def __init__(self, new_sweep: Callable[[], StageSweep], every: float, *, keeps_ids: bool) -> None:
        self._new_sweep = new_sweep
        self._sweep: StageSweep | None = new_sweep()
        self.report = self._sweep.report
        self._keeps_ids = keeps_ids
        self._most_left_out = int(LONGEST_BACKOFF / every)
        self._failures = 0  #: one after the other
        self._left_out = 0  #: times at which it is not tried
        self._is_found = False

    def is_due(self) -> bool:
        """Whether to sweep it this time; to be asked once each time."""
        self._left_out -= 1
        return self._left_out < 0

    def is_held_up(self) -> bool:
        """Whether its sweep goes on when something has passed."""
        hindrance = self.report.hindrance
        return self._sweep is not None and hindrance is not None and hindrance.reason in _PASSING

    def advance(self) -> None:
        """Sweep, or go on with it; what fails is noted in the report.

        Raises:
            SetupError: The stage is not there, and never was.
        """
        sweep = self._sweep = self._sweep or self._new_sweep()
        sweep.report = self.report
        sweep.try_to_advance(self._note_id if self._keeps_ids else lambda _: None)
        self._is_found = self._is_found or sweep.is_found
        error, hindrance = self.report.error, self.report.hindrance
        if isinstance(error, SetupError) and not self._is_found:
            raise error
        self._failures = self._failures + 1 if error else 0
        self._left_out = min(2 ** (self._failures - 1) - 1, self._most_left_out) if error else 0
        if error or sweep.is_done or (hindrance and hindrance.reason is Reason.LOCKED):
            self._sweep = None

    def _note_id(self, message: SentMessage) -> None:
        self.report.ids.append(message.id)
