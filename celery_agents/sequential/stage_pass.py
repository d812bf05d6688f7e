"""One pass over one stage: what waits there, page by page and batch by batch, each agent task once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from celery_agents.agent import Agent
from celery_agents.batch import Batch, Execution
from celery_agents.cli.signals import Interruption
from celery_agents.declaring import StageAgent
from celery_agents.direct import work_off
from celery_agents.errors import DeclarationError
from celery_agents.executor import execute
from celery_agents.messages import Outcome
from celery_agents.sequential.showing import OnProgress
from celery_agents.sequential.summary import StageSummary
from celery_agents.verdicts import log_failures
from celery_agents.watch import Limits, Unwatched, Watch
from celery_agents.work import Work

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage, AgentTask

    from celery_agents.gateway.project import Gateway

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassOptions:
    """How passes are made; the names are those of ``Runner.__call__``.

    Raises:
        DeclarationError: A number is too small.
    """

    num_retries: int = 3
    task_batch_size: int = 300
    max_tasks_per_stage: int | None = None  #: None: all

    def __post_init__(self) -> None:
        _at_least("num_retries", self.num_retries, 0)
        _at_least("task_batch_size", self.task_batch_size, 1)
        if self.max_tasks_per_stage is not None:
            _at_least("max_tasks_per_stage", self.max_tasks_per_stage, 1)


def _at_least(name: str, number: object, least: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise DeclarationError(f"{name}={number!r}: give a whole number, {least} or more.")


class StagePass:
    """Runs one agent on what waits at its stage.

    What is held is one batch, and the number of each agent task that was met, so that none is run twice: neither where
    the listing has to be begun again, nor where a pathway leads back to the stage.

    Args:
        declared: The agent.
        stage: Its stage.
        gateway: The project.
        options: How.
        summary: Where to count what became of each.
        interruption: Signals, which are held off while a batch is attempted.
        on_progress: Told of each agent task.
    """

    def __init__(
        self,
        declared: StageAgent,
        stage: AgentStage,
        gateway: Gateway,
        options: PassOptions,
        summary: StageSummary,
        interruption: Interruption,
        on_progress: OnProgress,
    ) -> None:
        retry = replace(declared.agent.retry, max_retries=options.num_retries)
        self._agent: Agent = replace(declared.agent, retry=retry)
        self._stage = stage
        self._gateway = gateway
        self._options = options
        self._summary = summary
        self._interruption = interruption
        self._watch = _UntilInterrupted(interruption, declared.options.limits)
        self._on_progress = on_progress
        self._met: set[int] = set()

    def run(self) -> None:
        """Make the pass.

        Raises:
            EncordException: What waits cannot be listed, although it was tried again.
        """
        waiting = islice(self._waiting(), self._options.max_tasks_per_stage)
        done = failed = 0
        while batch := list(islice(waiting, self._options.task_batch_size)):
            outcomes = self._run([task.model_dump_json() for task in batch], done, failed)
            done, failed = done + len(batch), failed + outcomes.count(Outcome.FAILED)

    def _waiting(self) -> Iterator[AgentTask]:
        """Yield what waits, each once; a listing that breaks off is begun again."""
        attempt = 1
        while True:
            try:
                for task in self._gateway.list_tasks(self._stage):
                    if task.uuid.int not in self._met:
                        self._met.add(task.uuid.int)
                        yield task
                        attempt = 1
            except Exception as error:  # noqa: BLE001  (judged, and raised again where it stays)
                self._wait_after(error, attempt)
                attempt += 1
            else:
                return

    def _wait_after(self, error: Exception, attempt: int) -> None:
        trouble, retry = self._gateway.classify(error), self._agent.retry
        if not trouble.transient or retry.is_used_up(attempt):
            raise error
        pause = retry.countdown(attempt, trouble.retry_after)
        logger.warning("Listing %s goes on in %.1f s: %s", self._stage.title, pause, type(error).__name__)
        time.sleep(pause)

    def _run(self, specs: list[str], done: int, failed: int) -> list[Outcome]:
        def attempt(batch: Batch) -> Execution:
            # Inside, an interruption ends the attempt after the agent task that is running, and what is answered is
            # committed; between attempts it ends the pass at once.
            with self._interruption.held_off():
                execution = execute(batch, self._agent, self._gateway, report, watch=self._watch)
                self._note(batch, execution)
                return execution

        def report(done_of_batch: int, failed_of_batch: int) -> None:
            self._on_progress(done + done_of_batch, failed + failed_of_batch)

        execution = work_off(Batch(specs), attempt, _wait)
        return [each.outcome for each in execution.outcomes]

    def _note(self, batch: Batch, execution: Execution) -> None:
        decided = execution.outcomes[len(batch.carry.outcomes) :]
        log_failures(decided, logger)
        self._summary.add(decided)


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return True  # num_retries is the limit


class _UntilInterrupted(Unwatched):
    """Watches over a batch until a signal comes, and over the time that each agent task takes."""

    def __init__(self, interruption: Interruption, limits: Limits) -> None:
        self._interruption = interruption
        self._limiting = _limiting(limits)

    def is_stopping(self) -> bool:
        return self._interruption.is_pending

    def check(self, seconds: float) -> None:
        self._limiting.check(seconds)

    def limit(self, works: Sequence[Work]) -> AbstractContextManager[object]:
        return self._limiting.limit(works)

    def limit_on_loop(self, work: Work) -> AbstractContextManager[object]:
        return self._limiting.limit_on_loop(work)


def _limiting(limits: Limits) -> Watch:
    if not limits.longest:
        return Unwatched()
    from celery_agents.supervision import Limiting  # here, because it imports Celery

    return Limiting(limits)
