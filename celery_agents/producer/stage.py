"""One sweep of one stage: list, claim, send; it can be held up, and goes on later where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents import backends, claims
from celery_agents.claims import SENDING_SECONDS, Spec
from celery_agents.errors import LedgerError
from celery_agents.producer import listing
from celery_agents.producer.gate import Gate, HinderedError
from celery_agents.producer.highwater import HighWater
from celery_agents.producer.options import Limit, SweepOptions
from celery_agents.producer.postponing import Postponed, decided
from celery_agents.producer.publishing import Sent, SweepableTask, publish
from celery_agents.producer.reports import Hindrance, Reason, SentMessage, StageReport
from celery_agents.producer.sizing import Sizing

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

logger = logging.getLogger(__name__)

#: Specs that are asked for together whether they are new, where fewer may be sent: about a page.
LEAST_TO_SORT = 100


class StageSweep:
    """Sends what waits at one stage.

    Args:
        task: The Celery task of the stage's agent.
        options: How.
        limit: How many, shared with the sweeps of other stages.
        water: How many may be in flight.

    Raises:
        SetupError: The batch size is less than 1, or there is no ledger to count what is in flight, see ``Gate``.
    """

    def __init__(
        self,
        task: SweepableTask,
        options: SweepOptions,
        limit: Limit | None = None,
        water: HighWater | None = None,
    ) -> None:
        self.task = task
        self.is_done = False
        self.is_found = False  #: whether its stage was there
        stage = str(task.stage_agent.stage)
        self.report = StageReport(stage=stage, task=task.name, queue=task.queue_name)
        self._options = options
        self._limit = limit or Limit(None)
        self._water = water
        self._gate = Gate(task.runner.ledger, options, water)
        chosen = task.stage_agent.options.batch_size if options.batch_size is None else options.batch_size
        self._sizing = Sizing(chosen, self._gate)
        self._in_hand: list[Spec] = []
        self._flushes: Generator[list[Spec]] | None = None
        self._postponed = Postponed()

    def advance(self) -> Generator[Sent]:
        """Send until nothing more waits (``is_done``), or something stands in the way (``report.hindrance``).

        After the latter it can be called again. After an exception it is over.

        Raises:
            SetupError: The stage is not there, or broker or result backend cannot be used.
            LedgerError: The ledger is needed and cannot be used.
            EncordException: Encord cannot be reached, or refuses.
        """
        self.report.hindrance = None
        try:
            if self._may_send():
                stage = self._found()
                self._room(stage)  # before the lock is taken, and others are kept from sweeping
                with self._gate.locked(stage.uuid):
                    while self._may_send() and self._fill(stage):
                        yield from self._send(stage, self._room(stage))
            self.is_done = True
        except HinderedError as error:
            self.report.hindrance = error.hindrance
        finally:
            if self.report.hindrance is None and self._flushes is not None:
                self._flushes.close()  # it is over: nothing more is listed

    def try_to_advance(self, on_sent: Callable[[SentMessage], object] = lambda _: None) -> None:
        """Advance, and note in the report what breaks it off."""
        self.report.error = None
        try:
            with closing(self.advance()) as sending:
                for message, _ in sending:
                    on_sent(message)
        except Exception as error:  # whatever Encord, the broker or the network answers
            logger.debug("The sweep of %s broke off", self.report.stage, exc_info=error)
            self.report.error = error

    def _found(self) -> AgentStage:
        """Return the stage; at first, after looking whether its results could be asked for."""
        stage = self.task.agent_stage
        if not self.is_found:
            self.is_found, self.report.stage = True, stage.title
            backends.check(self.task.app)
        return stage

    def _may_send(self) -> bool:
        """Whether the limit allows more; where not, a sweep that repeats goes on here the next time."""
        if not self._limit.left and self._options.repeats:
            raise HinderedError(Hindrance(Reason.LIMIT))
        return bool(self._limit.left)

    def _room(self, stage: AgentStage) -> int:
        """Return how much of what is in hand may be sent now, at least one; HinderedError where nothing."""
        return int(min(self._limit.left, len(self._in_hand) or 1, self._gate.room(stage.uuid)))

    def _fill(self, stage: AgentStage) -> bool:
        """Have something in hand, if anything waits."""
        if not self._in_hand:
            self.report.batch_size = self._sizing.adapt(stage.uuid)
        if self._flushes is None:
            self._flushes = listing.flushes(self._listed(stage), self._sizing.size, self._most)
        while not self._in_hand:
            flush = next(self._flushes, None)
            if flush is None:
                self._in_hand = self._postponed.taken()
                break
            self._in_hand = self._new_of(stage, flush) if self._options.new_first else flush
        return bool(self._in_hand)

    def _new_of(self, stage: AgentStage, flush: list[Spec]) -> list[Spec]:
        nothing: dict[UUID, datetime] = {}
        decided_at = self._gate.ask(lambda ledger: decided(ledger, stage.uuid, flush), nothing)
        return self._postponed.new_of(flush, decided_at)

    def _most(self) -> float:
        """How many to take from the listing at most: what is not sent soon may have left its stage when it is."""
        most = min(self._limit.left, self._water.high if self._water else float("inf"))
        return max(most, LEAST_TO_SORT) if self._options.new_first else most

    def _lists_ahead(self) -> bool:
        """Whether to list while something is sent: what may not be sent any more would be listed in vain."""
        return self._most() >= 2 * listing.SPECS_PER_FLUSH

    def _listed(self, stage: AgentStage) -> Iterator[list[Spec]]:
        gateway = self.task.runner.gateway
        try:
            for page in listing.pages(gateway, stage, self._options.filters, is_ahead=self._lists_ahead()):
                self._gate.keep_lock()  # renewed here too, for pages that are slow; looked at when there is a flush
                yield page
        except Exception as error:
            retry_after, ledger = gateway.classify(error).retry_after, self._gate.ledger
            if retry_after and ledger is not None:
                with suppress(LedgerError):
                    ledger.pause(stage.uuid, retry_after)
            raise

    def _send(self, stage: AgentStage, room: int) -> Iterator[Sent]:
        part, self._in_hand = self._in_hand[:room], self._in_hand[room:]
        with self._options.sending():
            sent = self._claim_and_publish(stage, listing.batches(part, self._sizing.size))
            self._count(sent)
            yield from sent  # inside, so that whoever is interrupted afterwards knows of all

    def _claim_and_publish(self, stage: AgentStage, batches: list[list[Spec]]) -> list[Sent]:
        ledger = self._gate.ledger
        messages = claims.claim(
            ledger,
            stage.uuid,
            batches,
            ttl=SENDING_SECONDS,
            force=self._options.force,
            is_needed=self._gate.needs_ledger,
            on_skipped=self._skip,
        )
        if not messages:
            return []
        try:
            sent = publish(self.task, stage.title, messages, self._options.message)
        except BaseException:
            # Some may have arrived all the same: a worker takes over what it finds unclaimed.
            claims.release(ledger, stage.uuid, messages)
            raise
        claims.confirm(ledger, stage.uuid, messages)
        return sent

    def _skip(self, held: Mapping[UUID, str]) -> None:
        self.report.held += len(held)
        if self._options.on_skipped is not None:
            self._options.on_skipped(held)

    def _count(self, sent: list[Sent]) -> None:
        for message, _ in sent:
            self.report.messages += 1
            self.report.agent_tasks += message.size
            self._limit.use(message.size)
