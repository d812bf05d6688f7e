"""Execute one batch: read its specs, load what the agent needs, call the agent once per agent task, commit.

Everything that can go wrong with one agent task is caught where it happens and noted on its own record, so the only way
out is one outcome per agent task, or a place in the next attempt. Nothing here knows Celery or Redis, and Encord is an
argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery_agents import providers
from celery_agents.answers import read_answer
from celery_agents.commit import commit
from celery_agents.dependencies.plan import Plan
from celery_agents.dependencies.resolve import resolve
from celery_agents.errors import SpecError
from celery_agents.messages import Carry, Outcome, Step, TaskError, TaskOutcome, TaskSpec, raw_text
from celery_agents.presence import find_present, settle_carried_moves
from celery_agents.retries import RetryPolicy
from celery_agents.work import Failure, Work, still_open

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.gateway.project import Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What is executed: the user's function for one stage, and how."""

    stage: str | UUID  #: title or UUID
    plan: Plan
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    label_row_options: Mapping[str, Any] = field(default_factory=dict)
    initialise_options: Mapping[str, Any] = field(default_factory=dict)
    will_set_priority: bool = False

    @property
    def needs_label_rows(self) -> bool:
        """Whether the label rows' metadata must be listed before the agent runs."""
        return self.will_set_priority or providers.needs_label_rows(self.plan.needs)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one message asks for."""

    specs: Sequence[object]  #: as they came: JSON text or JSON objects
    carry: Carry = field(default_factory=Carry)
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Execution:
    """What came of one attempt at a batch."""

    outcomes: list[TaskOutcome]  #: decided, in the order of the specs, after those decided in attempts before
    stage_uuid: UUID | None
    again: list[object]  #: specs that are worth another attempt, as they came
    carry: Carry  #: what the next attempt takes along
    countdown: float = 0.0  #: seconds until the next attempt

    def given_up(self) -> list[TaskOutcome]:
        """Return the outcomes where there will be no other attempt: what would have gone round again FAILED."""
        return [*self.outcomes, *(_given_up(raw, self.carry) for raw in self.again)]


#: Told after each agent task how many of the batch are through and how many of those failed.
Report = Callable[[int, int], None]


def execute(batch: Batch, agent: Agent, encord: Gateway, report: Report) -> Execution:
    """Execute *batch* and return what became of each of its agent tasks.

    Args:
        batch: The specs, and what earlier attempts decided.
        agent: The user's function and its options.
        encord: The project.
        report: Called after each agent task.
    """
    entries = _admit(batch, encord)
    works = [entry for entry in entries if isinstance(entry, Work)]
    is_about_everything = encord.judge(is_last_attempt=agent.retry.is_used_up(batch.attempt))
    stage = _open_stage(works, agent, encord)
    if stage is not None:
        _refuse_strangers(works, stage, encord.project_hash)
        settle_carried_moves(works, batch.carry.moves, stage, encord)
        new = [work for work in still_open(works) if not work.is_saved]
        find_present(new, stage, encord, agent.label_row_options if agent.needs_label_rows else None)
        loading = providers.Loading(encord, stage, agent.initialise_options, is_about_everything)
        _load(agent, new, loading)
        _run_all(new, agent, stage, _Tally(entries, batch.carry, report))
        commit(works, stage, encord, is_about_everything)
    return _conclude(entries, batch, agent, encord, stage.uuid if stage else None)


def _admit(batch: Batch, encord: Gateway) -> list[Work | TaskOutcome]:
    """Read the specs: a record for each agent task, an outcome for each spec that is none; duplicates are dropped."""
    entries: list[Work | TaskOutcome] = []
    seen: set[UUID] = {outcome.task_uuid for outcome in batch.carry.outcomes if outcome.task_uuid}
    for raw in batch.specs:
        try:
            spec = TaskSpec.decode(raw)
        except SpecError as error:
            entries.append(
                TaskOutcome(
                    outcome=Outcome.FAILED,
                    error=TaskError.from_exception(error.with_traceback(None), "spec", attempt=batch.attempt),
                    spec=raw_text(raw),
                )
            )
            continue
        if spec.uuid not in seen:
            seen.add(spec.uuid)
            entries.append(Work(raw=raw, spec=spec, staged=encord.new_bundle()))
    return entries


def _open_stage(works: Sequence[Work], agent: Agent, encord: Gateway) -> AgentStage | None:
    try:
        return encord.agent_stage(agent.stage)
    except Exception as error:
        for work in works:
            work.fail(error, "load")
        return None


def _refuse_strangers(works: Sequence[Work], stage: AgentStage, project_hash: UUID) -> None:
    """A spec that says where it belongs must belong here; one made by hand need not say."""
    for work in works:
        if work.spec.project_hash not in (None, project_hash):
            work.fail(
                SpecError(f"This spec is for project {work.spec.project_hash}, not for {project_hash}."),
                "spec",
            )
        elif work.spec.stage_uuid not in (None, stage.uuid):
            work.fail(
                SpecError(
                    f"This spec is for stage {work.spec.stage_uuid}, not for {stage.title!r} ({stage.uuid})."
                ),
                "spec",
            )


def _load(agent: Agent, works: Sequence[Work], loading: providers.Loading) -> None:
    try:
        providers.load(agent.plan.needs, works, loading)
    except Exception as error:
        for work in still_open(works):
            work.fail(error, "load")


class _Tally:
    """Counts what is through, for the report."""

    def __init__(self, entries: Sequence[Work | TaskOutcome], carry: Carry, report: Report) -> None:
        self._report = report
        settled = [entry for entry in entries if isinstance(entry, TaskOutcome) or not entry.is_open]
        self._done = len(carry.outcomes) + len(settled)
        self._failed = sum(outcome.outcome is Outcome.FAILED for outcome in carry.outcomes)
        self._failed += sum(isinstance(entry, TaskOutcome) or entry.failure is not None for entry in settled)

    def count(self, work: Work) -> None:
        self._done += 1
        self._failed += work.failure is not None
        self._report(self._done, self._failed)


def _run_all(works: Sequence[Work], agent: Agent, stage: AgentStage, tally: _Tally) -> None:
    for work in still_open(works):
        _run(work, agent, stage)
        tally.count(work)


def _run(work: Work, agent: Agent, stage: AgentStage) -> None:
    """Call the agent for one agent task and note its answer; what it raises is its own."""
    step: Step = "agent"
    try:
        returned = _call(agent.plan, work.values)
        step = "answer"
        answer = read_answer(returned, stage)
        chosen_by_bundle = work.staged.take_pathway()
        if answer.pathway is None and chosen_by_bundle is not None:
            answer = read_answer(chosen_by_bundle, stage)
        step = "save"
        if answer.label_row is not None:
            answer.label_row.save(bundle=work.staged)
    except SystemExit as stop:
        if _comes_from_a_signal(stop):
            raise
        work.fail(stop, step)
    except Exception as error:
        work.fail(error, step)
    else:
        work.pathway = answer.pathway
        work.priority = answer.priority
        work.is_moved_by_agent = work.staged.has_moves
        work.is_answered = True


def _call(plan: Plan, values: Mapping[str, Any]) -> Any:
    raised: BaseException | None = None
    with ExitStack() as stack:
        try:
            return plan.function(**resolve(plan, values, stack))
        except BaseException as error:
            raised = error
            raise
    # Only reached where the clean-up of a dependency swallowed what the agent raised: it failed all the same.
    raise raised


def _comes_from_a_signal(stop: SystemExit) -> bool:
    """Whether *stop* is the pool ending this process, rather than the agent calling ``sys.exit``."""
    place = stop.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = str(place.tb_frame.f_globals.get("__name__", "")) if place is not None else ""
    return module.split(".")[0] in ("billiard", "celery")


def _conclude(
    entries: Sequence[Work | TaskOutcome],
    batch: Batch,
    agent: Agent,
    encord: Gateway,
    stage_uuid: UUID | None,
) -> Execution:
    """Decide for each failure whether it goes round again, and gather everything."""
    outcomes = list(batch.carry.outcomes)
    again: list[Work] = []
    errors: dict[UUID, tuple[TaskError, ...]] = {}
    countdown = 0.0
    for entry in entries:
        if isinstance(entry, Work) and entry.failure is not None:
            trouble = encord.classify(entry.failure.error)
            is_retried, history = _judge(entry, entry.failure, batch, agent.retry, passes=trouble.transient)
            if is_retried:
                again.append(entry)
                errors[entry.spec.uuid] = history
                countdown = max(countdown, agent.retry.countdown(batch.attempt, trouble.retry_after))
                continue
        outcome = entry.outcome if isinstance(entry, Work) else entry
        assert outcome is not None  # commit decides all that did not fail
        outcomes.append(outcome)
    moves = {work.spec.uuid: work.pathway.uuid for work in again if work.is_saved and work.pathway}
    carry = Carry(outcomes=tuple(outcomes), moves=moves, errors=errors)
    return Execution(outcomes, stage_uuid, [work.raw for work in again], carry, countdown)


def _judge(
    work: Work, failure: Failure, batch: Batch, retry: RetryPolicy, *, passes: bool
) -> tuple[bool, tuple[TaskError, ...]]:
    """Decide FAILED, or return that it goes round again, with all that went wrong so far."""
    is_transient = retry.covers(failure.error, passes=passes)
    error = TaskError.from_exception(
        failure.error, failure.step, attempt=batch.attempt, transient=is_transient
    )
    earlier = batch.carry.errors.get(work.spec.uuid, ())
    is_retried = is_transient and not retry.is_used_up(batch.attempt)
    if not is_retried:
        work.decide(Outcome.FAILED, error=error, earlier_errors=earlier)
    return is_retried, (*earlier, error)


def _given_up(raw: object, carry: Carry) -> TaskOutcome:
    spec = TaskSpec.decode(raw)
    *earlier, error = carry.errors[spec.uuid]
    return TaskOutcome(
        outcome=Outcome.FAILED,
        task_uuid=spec.uuid,
        data_hash=spec.data_hash,
        data_title=spec.data_title,
        error=error,
        earlier_errors=tuple(earlier),
    )
