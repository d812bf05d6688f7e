"""One batch from message to result: read its specs, and decide at the end what is done and what goes round again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents.errors import AgentRetryError, SpecError
from celery_agents.messages import (
    MAX_SPEC_BYTES,
    Carry,
    Outcome,
    TaskError,
    TaskOutcome,
    TaskSpec,
    raw_text,
    tries,
)
from celery_agents.retries import RetryPolicy
from celery_agents.work import Failure, Work

if TYPE_CHECKING:
    from celery_agents.gateway.project import Gateway

#: A spec that could be read, or the outcome of one that could not.
Entry = Work | TaskOutcome


@dataclass(frozen=True, slots=True)
class Batch:
    """What one message asks for."""

    specs: Sequence[object]  #: as they came: JSON text or JSON objects
    carry: Carry = field(default_factory=Carry)
    max_spec_bytes: int = MAX_SPEC_BYTES  #: longest spec that is read

    @property
    def attempt(self) -> int:
        """Which try of its message this is, counted from 1; being interrupted is no try."""
        return self.carry.attempt

    def attempt_of(self, task_uuid: UUID) -> int:
        """Which try of this agent task this is; trouble with others of its message is no try of its own."""
        return 1 + tries(self.carry.errors.get(task_uuid, ()))

    @property
    def furthest_attempt(self) -> int:
        """The highest that ``attempt_of`` gives."""
        return 1 + max(map(tries, self.carry.errors.values()), default=0)

    def after_crash(self) -> Batch:
        """Return this batch, remembering from now on that a delivery of its message has died."""
        return replace(self, carry=self.carry.model_copy(update={"is_after_crash": True}))


@dataclass(frozen=True, slots=True)
class Execution:
    """What came of one attempt at a batch."""

    outcomes: list[TaskOutcome]  #: decided, in the order of the specs, after those decided in attempts before
    stage_uuid: UUID | None
    again: list[object]  #: specs that go round again, as they came
    waiting: list[UUID]  #: the same as agent tasks
    carry: Carry  #: what they take along
    trouble: list[TaskError]  #: what went wrong in this attempt and is worth another
    countdown: float = 0.0  #: seconds until they may
    retry_after: float | None = None  #: seconds for which Encord asked to be left alone

    @property
    def total(self) -> int:
        """How many agent tasks the message has."""
        return len(self.outcomes) + len(self.again)

    @property
    def is_interrupted(self) -> bool:
        """Whether some agent tasks were not begun, because the worker is stopping."""
        return len(self.again) > len(self.trouble)

    def given_up(self) -> list[TaskOutcome]:
        """Return the outcomes where there will be no other attempt: what would have gone round again FAILED."""
        return [*self.outcomes, *(_given_up(raw, self.carry) for raw in self.again)]


def admit(batch: Batch, encord: Gateway) -> list[Entry]:
    """Read the specs: a record for each agent task, an outcome for each spec that is none; duplicates are dropped."""
    entries: list[Entry] = []
    new_bundle = encord.new_bundle
    # As numbers: to hash or compare a UUID is a call of Python.
    seen = {outcome.task_uuid.int for outcome in batch.carry.outcomes if outcome.task_uuid}
    for raw in batch.specs:
        try:
            spec = TaskSpec.decode(raw, batch.max_spec_bytes)
        except SpecError as error:
            entries.append(_unreadable(raw, error, batch.attempt))
            continue
        if spec.uuid.int not in seen:
            seen.add(spec.uuid.int)
            entries.append(Work(raw, spec, new_bundle))
    return entries


def _unreadable(raw: object, error: SpecError, attempt: int) -> TaskOutcome:
    # The traceback would only show our own decoder.
    reason = TaskError.from_exception(error.with_traceback(None), "spec", attempt=attempt)
    return TaskOutcome(outcome=Outcome.FAILED, error=reason, spec=raw_text(raw))


def conclude(
    batch: Batch,
    entries: Sequence[Entry],
    retry: RetryPolicy,
    encord: Gateway,
    stage_uuid: UUID | None,
    pause: float = 0.0,
) -> Execution:
    """Decide for each agent task that failed whether it goes round again, and gather everything.

    One that was not begun goes round as well, and costs no attempt.
    """
    outcomes = list(batch.carry.outcomes)
    again: list[Work] = []
    trouble: list[TaskError] = []
    errors = dict(batch.carry.errors)
    countdown, retry_after = pause, 0.0
    for entry in entries:
        if isinstance(entry, Work) and entry.failure is not None:
            verdict = encord.classify(entry.failure.error)
            if not verdict.is_attempt:  # it goes round like what was not begun
                countdown = max(countdown, verdict.retry_after or 0.0)
                again.append(entry)
                continue
            policy = retry.asked_by(entry.failure.error)
            is_retried, history = _judge(entry, entry.failure, batch, policy, passes=verdict.transient)
            if is_retried:
                trouble.append(history[-1])
                errors[entry.spec.uuid] = history
                countdown = max(countdown, policy.countdown(tries(history), verdict.retry_after))
                retry_after = max(retry_after, verdict.retry_after or 0.0)
        outcome = entry.outcome if isinstance(entry, Work) else entry
        if outcome is not None:
            outcomes.append(outcome)
        elif isinstance(entry, Work):
            again.append(entry)
    waiting = [work.spec.uuid for work in again]
    carry = Carry(
        outcomes=tuple(outcomes),
        moves=_moves_to_carry(again, batch),
        errors={uuid: errors[uuid] for uuid in waiting if uuid in errors},
        attempt=batch.attempt + 1 if trouble else batch.attempt,
        is_after_crash=batch.carry.is_after_crash,
    )
    return Execution(
        outcomes,
        stage_uuid,
        [work.raw for work in again],
        waiting,
        carry,
        trouble,
        countdown,
        retry_after or None,
    )


def _moves_to_carry(again: Sequence[Work], batch: Batch) -> dict[UUID, UUID]:
    """Return the moves that are left to do: of this attempt, and of earlier ones where this one did not get to them."""
    earlier = batch.carry.moves
    saved = {work.spec.uuid: work.pathway.uuid for work in again if work.is_saved and work.pathway}
    untouched = [work.spec.uuid for work in again if not work.is_answered and work.spec.uuid in earlier]
    return {**{uuid: earlier[uuid] for uuid in untouched}, **saved}


def _judge(
    work: Work, failure: Failure, batch: Batch, retry: RetryPolicy, *, passes: bool
) -> tuple[bool, tuple[TaskError, ...]]:
    """Decide FAILED, or return that it goes round again, with all that went wrong so far."""
    is_transient = retry.covers(failure.error, passes=passes)
    reason = failure.error.reason if isinstance(failure.error, AgentRetryError) else None
    error = TaskError.from_exception(
        reason or failure.error, failure.step, attempt=batch.attempt, transient=is_transient
    )
    earlier = batch.carry.errors.get(work.spec.uuid, ())
    is_retried = is_transient and not retry.is_used_up(batch.attempt_of(work.spec.uuid))
    if not is_retried:
        work.decide(Outcome.FAILED, error=error, earlier_errors=earlier)
    return is_retried, (*earlier, error)


#: Why there is no outcome of what was put off until nobody waited any more.
_NOT_BEGUN = TaskError(
    type="celery_agents.gateway.permits.NoPermitError",
    detail="The rate limit (agents_rate_limit) allowed no call to Encord in time.",
    step="load",
    transient=True,
)


def _given_up(raw: object, carry: Carry) -> TaskOutcome:
    spec = TaskSpec.decode(raw)
    *earlier, error = carry.errors.get(spec.uuid, (_NOT_BEGUN,))
    return spec.decided(Outcome.FAILED, error=error, earlier_errors=tuple(earlier))
