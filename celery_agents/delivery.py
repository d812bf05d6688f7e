"""One delivery of a message, as the ledger sees it: what it may work on, what it may commit, what it has decided.

Without a ledger everything may be worked on and committed, and nothing is remembered. A ledger that cannot be reached
is gone on without, from that moment on and with one warning: Encord refuses what would be done twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar
from uuid import UUID

from celery_agents.errors import LedgerError, PoisonError
from celery_agents.ledger.records import Settlement
from celery_agents.messages import Outcome, TaskError, TaskOutcome, TaskSpec, raw_text
from celery_agents.work import Work

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger, Takeover

logger = logging.getLogger(__name__)

#: Seconds for which a worker's claim lasts without being renewed; it is renewed before each commit. Longer than the
#: pauses before retries, and short enough that a sweep finds again what a lost broker has forgotten.
CLAIM_SECONDS = 15 * 60.0
#: How many crashes make an agent task poison.
MAX_CRASHES = 3

Reply = TypeVar("Reply")


class Delivery(Protocol):
    """What the executor asks of a delivery."""

    def begin(self, works: Sequence[Work], stage_uuid: UUID) -> float:
        """Decide for each of *works* that is not this delivery's; return for how many seconds the stage is paused."""
        ...

    def is_suspect(self, work: Work) -> bool:
        """Whether *work* may be what killed an earlier delivery."""
        ...

    def is_careful(self) -> bool:
        """Whether an earlier delivery of this message has died."""
        ...

    def note(self, work: Work | None) -> None:
        """Note which agent task runs now, where that is of use."""
        ...

    def held(self, works: Sequence[Work]) -> Sequence[Work]:
        """Return those of *works* that may be committed, and decide for the others."""
        ...

    def settle(self, works: Iterable[Work]) -> None:
        """Remember what was decided for *works*."""
        ...


class Unledgered:
    """A delivery that nobody keeps track of."""

    def begin(self, works: Sequence[Work], stage_uuid: UUID) -> float:
        """Take everything."""
        return 0.0

    def is_suspect(self, work: Work) -> bool:
        """Suspect nothing."""
        return False

    def is_careful(self) -> bool:
        """Be as always."""
        return False

    def note(self, work: Work | None) -> None:
        """Note nothing."""

    def held(self, works: Sequence[Work]) -> Sequence[Work]:
        """Commit everything."""
        return works

    def settle(self, works: Iterable[Work]) -> None:
        """Remember nothing."""


class Ledgered:
    """A delivery of one message, kept track of in the ledger.

    Args:
        ledger: The project's.
        message_id: Celery's id, which stays the same over redeliveries and retries.
        where: The worker's name, for people.
    """

    def __init__(self, ledger: Ledger, message_id: str, where: str) -> None:
        self._ledger: Ledger | None = ledger
        self._message_id = message_id
        self._where = where
        self._stage_uuid: UUID | None = None
        self._token = 0
        self._deliveries = 1
        self._crashes: dict[UUID, int] = {}
        self._settled: set[UUID] = set()

    def _ask(self, question: Callable[[Ledger, UUID], Reply], otherwise: Reply) -> Reply:
        """Ask the ledger; go on without it where it does not answer."""
        if self._ledger is None or self._stage_uuid is None:
            return otherwise
        try:
            return question(self._ledger, self._stage_uuid)
        except LedgerError as error:
            self._ledger = None
            logger.warning("Message %s goes on without the ledger: %s", self._message_id, error)
            return otherwise

    def begin(self, works: Sequence[Work], stage_uuid: UUID) -> float:
        """Take over what is this message's; what another message has, what is settled and what is poison is decided."""
        self._stage_uuid = stage_uuid
        uuids = [work.spec.uuid for work in works]
        taken = self._ask(
            lambda ledger, stage: ledger.take_over(stage, self._message_id, uuids, CLAIM_SECONDS), None
        )
        if taken is None:
            return 0.0
        self._token, self._deliveries = taken.token, taken.deliveries
        self._crashes = dict(taken.crashes)
        for work in works:
            self._decide(work, taken)
        return taken.paused_for

    def _decide(self, work: Work, taken: Takeover) -> None:
        uuid = work.spec.uuid
        if uuid in taken.settled:
            work.outcome = taken.settled[uuid].outcome
            self._settled.add(uuid)
        elif uuid in taken.held_by_others:
            work.decide(Outcome.GONE, f"Message {taken.held_by_others[uuid]} has it, and decides about it.")
            self._settled.add(uuid)
        elif uuid not in taken.granted:
            work.decide(Outcome.GONE, "An earlier delivery of this message decided about it.")
            self._settled.add(uuid)
        # The first crash of a message is nobody's: until then nobody had noted what was running.
        elif taken.crashes.get(uuid, 0) + 1 >= MAX_CRASHES:
            crashes = taken.crashes[uuid] + 1
            poison = PoisonError(
                f"Its agent was running each of the {crashes} times that a worker process died."
            )
            work.decide(Outcome.FAILED, error=TaskError.from_exception(poison, "agent", attempt=crashes))

    def is_suspect(self, work: Work) -> bool:
        """Whether a delivery has died while it ran *work*."""
        return work.spec.uuid in self._crashes

    def is_careful(self) -> bool:
        """Whether the delivery before this one never ended."""
        return self._deliveries > 1

    def note(self, work: Work | None) -> None:
        """Where an earlier delivery died: note what runs, so that the next one knows if this one dies as well."""
        if self.is_careful():
            uuid = work.spec.uuid if work else None
            self._ask(
                lambda ledger, stage: ledger.note_running(stage, self._message_id, self._token, uuid), None
            )

    def held(self, works: Sequence[Work]) -> Sequence[Work]:
        """Renew the claims; what a newer delivery or another message has taken is not this one's to commit."""
        uuids = [work.spec.uuid for work in works]
        if not uuids:
            return works
        held = self._ask(
            lambda ledger, stage: ledger.hold(stage, self._message_id, self._token, uuids, CLAIM_SECONDS),
            None,
        )
        if held is None:
            return works
        for work in works:
            if work.spec.uuid not in held.held:
                work.decide(Outcome.GONE, "Another delivery has taken it over, and decides about it.")
                self._settled.add(work.spec.uuid)
        return [work for work in works if work.spec.uuid in held.held]

    def settle(self, works: Iterable[Work]) -> None:
        """Record what is decided and not recorded yet."""
        self._record([work.outcome for work in works if work.outcome], {}, is_last=False)

    def end(
        self, outcomes: Iterable[TaskOutcome], specs: Iterable[object], retry_after: float | None
    ) -> None:
        """Record the rest and end the delivery; what FAILED is kept with its spec, to be replayed.

        Args:
            outcomes: Those that this delivery decided.
            specs: All specs of the message, as they came.
            retry_after: Seconds for which Encord asked to be left alone, which goes for the whole stage.
        """
        failed = {each.task_uuid for each in outcomes if each.outcome is Outcome.FAILED}
        kept = {uuid: text for uuid, text in map(_identified, specs) if uuid in failed} if failed else {}
        self._record(list(outcomes), kept, is_last=True)
        if retry_after:
            self._ask(lambda ledger, stage: ledger.pause(stage, retry_after), 0.0)

    def _record(self, outcomes: list[TaskOutcome], specs: dict[UUID | None, str], *, is_last: bool) -> None:
        new = [each for each in outcomes if each.task_uuid and each.task_uuid not in self._settled]
        settlements = [
            Settlement(each, attempts=1 + len(each.earlier_errors), spec=specs.get(each.task_uuid))
            for each in new
        ]
        self._settled.update(each.task_uuid for each in new if each.task_uuid)
        if settlements or is_last:
            self._ask(
                lambda ledger, stage: ledger.settle(
                    stage, self._message_id, self._token, settlements, where=self._where, is_last=is_last
                ),
                frozenset[UUID](),
            )


def _identified(spec: object) -> tuple[UUID | None, str]:
    try:
        return TaskSpec.decode(spec).uuid, raw_text(spec)
    except ValueError:
        return None, ""
