"""One delivery of a message, kept track of in the ledger: what it may work on, what it may commit, what it has decided.

A ledger that does not answer is gone on without, with one warning, but for one case: a delivery that has not heard of
its ledger for so long that its message may be another worker's by now commits nothing. What it did goes round again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from celery_agents.errors import LedgerError, PoisonError
from celery_agents.ledger.records import Settlement
from celery_agents.messages import Outcome, TaskError, TaskOutcome, TaskSpec, tries
from celery_agents.work import Work

if TYPE_CHECKING:
    from celery_agents.batch import Batch, Execution
    from celery_agents.ledger import Held, Ledger, Takeover

logger = logging.getLogger(__name__)

#: Seconds for which a worker's claim lasts without being renewed; it is renewed before each commit. Longer than the
#: pauses before retries, and short enough that a sweep finds again what a lost broker has forgotten.
CLAIM_SECONDS = 15 * 60.0
#: How many crashes make an agent task poison.
MAX_CRASHES = 3
#: Seconds after its begin in which a delivery does not ask before it commits: nearly always it has ended by then. Where
#: a worker dies and leaves a process of its pool behind, its messages are redelivered later than that. What the ledger
#: says afterwards holds for the commit that asked, and no longer: by then the broker may redeliver at any time.
FRESH_SECONDS = 2.0
#: Seconds without the ledger in which a delivery goes on committing, where the broker may redeliver at any time.
LEAST_GRACE = 10.0

#: Seconds before each try to record the end of a delivery: a Redis that is restarted is away for a moment, and what is
#: not recorded then stays claimed, and has no outcome.
INSISTING = (0.0, 0.5, 1.0, 2.0, 4.0)

Reply = TypeVar("Reply")


class Ledgered:
    """A delivery of one message, kept track of in the ledger.

    Args:
        ledger: The project's.
        message_id: Celery's id, which stays the same over redeliveries and retries.
        where: The worker's name, for people.
        max_crashes: How many worker processes an agent task may kill.
        redelivered_after: Seconds after which the broker gives the message to another worker, if this one is cut off;
            0: as soon as it sees that.
        clock: Seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        message_id: str,
        where: str,
        *,
        max_crashes: int = MAX_CRASHES,
        redelivered_after: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._message_id = message_id
        self._where = where
        self._max_crashes = max_crashes
        self._fresh = min(FRESH_SECONDS, redelivered_after / 2)
        self._grace = max(LEAST_GRACE, redelivered_after)
        self._clock = clock
        self._stage_uuid: UUID | None = None
        self._token = 0  #: 0: nobody knows of this delivery, so nobody can have superseded it
        self._deliveries = 1
        self._death = ""
        self._crashes: dict[UUID, int] = {}
        self._settled: set[UUID] = set()
        self._is_cancelled = False
        self._is_superseded = False
        self._is_away = False
        self._heard_at = 0.0
        self._begun_at = 0.0

    def _ask(
        self, question: Callable[[Ledger, UUID], Reply], otherwise: Reply, *, anew: bool = False
    ) -> Reply:
        """Ask the ledger; go on without it where it does not answer, and ask it no more unless it is *anew*."""
        if self._stage_uuid is None or (self._is_away and not anew):
            return otherwise
        try:
            reply = question(self._ledger, self._stage_uuid)
        except LedgerError as error:
            if not self._is_away:
                logger.warning("Message %s goes on without the ledger: %s", self._message_id, error)
            self._is_away = True
            return otherwise
        self._is_away, self._heard_at = False, self._clock()
        return reply

    def begin(self, works: Sequence[Work], stage_uuid: UUID) -> float:
        """Take over what is this message's; what another message has, what is settled and what is poison is decided."""
        self._stage_uuid, self._begun_at = stage_uuid, self._clock()
        uuids = [work.spec.uuid for work in works]
        taken = self._ask(
            lambda ledger, stage: ledger.take_over(stage, self._message_id, uuids, CLAIM_SECONDS), None
        )
        if taken is None:
            return 0.0
        self._token, self._deliveries, self._death = taken.token, taken.deliveries, taken.death
        self._crashes = dict(taken.crashes)
        self._is_cancelled = taken.is_cancelled
        if taken.is_cancelled or taken.crashes or taken.withheld:
            for work in works:
                self._decide(work, taken)
        return 0.0 if taken.is_cancelled else taken.paused_for

    def _decide(self, work: Work, taken: Takeover) -> None:
        uuid = work.spec.uuid
        if uuid in taken.settled:
            work.outcome = taken.settled[uuid].outcome
            self._settled.add(uuid)
        elif taken.is_cancelled:
            return  # whatever became of it, it is not for this message to say
        elif uuid in taken.held_by_others:
            work.decide(Outcome.GONE, f"Message {taken.held_by_others[uuid]} has it, and decides about it.")
            self._settled.add(uuid)
        elif uuid in taken.withheld:
            work.decide(Outcome.GONE, "An earlier delivery of this message decided about it.")
            self._settled.add(uuid)
        # The first crash of a message is nobody's: until then nobody had noted what was running.
        elif taken.crashes.get(uuid, 0) + 1 >= self._max_crashes:
            self._decide_poison(work, taken.crashes.get(uuid, 0) + 1)

    def _decide_poison(self, work: Work, crashes: int) -> None:
        last = self._death or "the whole worker was gone, so nobody knows of what"
        poison = PoisonError(
            f"Its agent was running each of the {crashes} times that a worker process died; the last time: {last}"
        )
        work.decide(Outcome.FAILED, error=TaskError.from_exception(poison, "agent", attempt=crashes))

    def is_suspect(self, work: Work) -> bool:
        """Whether a delivery has died while it ran *work*."""
        # Asked for each agent task, and nearly always of none: to hash its UUID would cost more than all else.
        return bool(self._crashes) and work.spec.uuid in self._crashes

    def is_careful(self) -> bool:
        """Whether the delivery before this one never ended."""
        return self._deliveries > 1

    def note(self, work: Work | None) -> None:
        """Where an earlier delivery died: note what runs, so that the next one knows if this one dies as well."""
        if self._deliveries > 1:
            uuid = work.spec.uuid if work else None
            self._ask(
                lambda ledger, stage: ledger.note_running(stage, self._message_id, self._token, uuid), None
            )

    def held(self, works: Sequence[Work]) -> Sequence[Work]:
        """Renew the claims; what a newer delivery or another message has taken is not this one's to commit."""
        silence, age = self._clock() - self._heard_at, self._clock() - self._begun_at
        if not works or self._token == 0 or (age < self._fresh and not self._is_away):
            return works
        held = self._hold([work.spec.uuid for work in works], CLAIM_SECONDS)
        if held is None:
            return works if silence < self._grace else self._give_up(works, silence)
        self._is_cancelled |= held.is_cancelled
        self._is_superseded |= held.is_superseded
        if not held.lost:
            return works
        for work in works:
            if work.spec.uuid in held.lost:
                work.decide(Outcome.GONE, "Another delivery has taken it over, and decides about it.")
                self._settled.add(work.spec.uuid)
        return [work for work in works if work.spec.uuid not in held.lost]

    def _hold(self, uuids: Sequence[UUID], seconds: float) -> Held | None:
        return self._ask(
            lambda ledger, stage: ledger.hold(stage, self._message_id, self._token, uuids, seconds),
            None,
            anew=True,
        )

    def _give_up(self, works: Sequence[Work], silence: float) -> Sequence[Work]:
        for work in works:
            work.fail(
                LedgerError(
                    f"The ledger has not answered for {silence:.0f} s, so the message may be another worker's by now."
                ),
                "save",
            )
        return []

    def is_cancelled(self) -> bool:
        """Whether the ledger's last answer said that the message is cancelled."""
        return self._is_cancelled

    def is_superseded(self) -> bool:
        """Whether the ledger said that a newer delivery of this message is at work, or has ended."""
        return self._is_superseded

    def settle(self, works: Iterable[Work]) -> None:
        """Record what is decided and not recorded yet."""
        self._record([work.outcome for work in works if work.outcome], {}, is_last=False)

    def end(self, execution: Execution, batch: Batch) -> None:
        """Record the rest and end the delivery; what FAILED is kept with its spec, to be replayed.

        Where something goes round again it is not at its end before that is sent: a process that dies before has taken
        along what it knew, such as a move whose answer was lost, and the next delivery must be careful.
        What goes round again stays claimed until it may; a pause that Encord asked for goes for the whole stage.
        """
        if execution.countdown > CLAIM_SECONDS / 2:
            self._hold(execution.waiting, execution.countdown + CLAIM_SECONDS)
        outcomes = execution.outcomes[len(batch.carry.outcomes) :]
        failed = {each.task_uuid for each in outcomes if each.error is not None}
        kept = (
            {uuid: text for uuid, text in map(_identified, batch.specs) if uuid in failed} if failed else {}
        )
        self._record(outcomes, kept, is_last=not execution.again, insists=True)
        if not execution.again and None in failed:
            self._release_unread()
        if execution.retry_after:
            pause = execution.retry_after
            self._ask(lambda ledger, stage: ledger.pause(stage, pause), 0.0)

    def close(self) -> None:
        """End the delivery, now that what goes round again was sent."""
        self._record([], {}, is_last=True)

    def release(self, uuids: Sequence[UUID]) -> None:
        """Give back what this message does not decide about any more, because it was cancelled."""
        self._ask(lambda ledger, stage: ledger.release(stage, self._message_id, uuids), 0, anew=True)

    def _release_unread(self) -> None:
        # A spec that nobody can read may be claimed all the same, by a producer that is newer than this worker.
        self._ask(lambda ledger, stage: ledger.release(stage, self._message_id), 0, anew=True)

    def time_out(self, work: Work, error: TaskError) -> None:
        """Record that *work* FAILED, before the process that cannot leave it ends."""
        work.decide(Outcome.FAILED, error=error)
        assert work.outcome is not None  # decided above
        self._record([work.outcome], {work.spec.uuid: work.spec.encode()}, is_last=False, anew=True)

    def _record(
        self,
        outcomes: Sequence[TaskOutcome],
        specs: Mapping[UUID | None, str],
        *,
        is_last: bool,
        anew: bool = False,
        insists: bool = False,
    ) -> None:
        new = (
            [each for each in outcomes if each.task_uuid not in self._settled] if self._settled else outcomes
        )
        settlements = [_settlement(each, specs) for each in new] if specs else new
        for pause in INSISTING if insists else INSISTING[:1]:
            if pause:  # sleep(0) hands the processor over, which costs as much as the rest
                time.sleep(pause)
            if not (settlements or is_last) or self._settle(
                settlements, is_last=is_last, anew=anew or insists or is_last
            ):
                if not is_last:
                    self._settled.update(each.task_uuid for each in new if each.task_uuid)
                return
            if self._clock() - self._heard_at > self._grace:
                return

    def _settle(self, settlements: Sequence[TaskOutcome | Settlement], *, is_last: bool, anew: bool) -> bool:
        """Return whether it is recorded; what is not is recorded with the next, or at the end."""
        left_out = self._ask(
            lambda ledger, stage: ledger.settle(
                stage, self._message_id, self._token, settlements, where=self._where, is_last=is_last
            ),
            None,
            anew=anew,
        )
        if left_out and self._message_id in left_out.values():
            self._is_superseded = True
        return left_out is not None


def _settlement(outcome: TaskOutcome, specs: Mapping[UUID | None, str]) -> TaskOutcome | Settlement:
    spec = specs.get(outcome.task_uuid)
    return Settlement(outcome, 1 + tries(outcome.earlier_errors), spec) if spec is not None else outcome


def _identified(spec: object) -> tuple[UUID | None, str]:
    try:
        read = TaskSpec.decode(spec)
        return read.uuid, read.encode()
    except ValueError:
        return None, ""
