"""Execute one batch: find out who is still there, load what the agent needs, call it, commit.

A batch is worked through in windows, so that neither a call to Encord nor memory grows with the message; they overlap,
see ``pipeline``. Whatever goes wrong with one agent task is caught where it happens and noted on its own record, so the
only way out is one outcome per agent task, or a place in the next attempt. Nothing here knows Celery or Redis; Encord,
the clock and who watches over it are arguments.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents import providers
from celery_agents.agent import Agent
from celery_agents.batch import Batch, Entry, Execution, admit, conclude
from celery_agents.calling import Calls, choose
from celery_agents.commit import commit
from celery_agents.delivery import Delivery, Unledgered
from celery_agents.dependencies.ahead import Fetcher, fetching
from celery_agents.errors import SpecError
from celery_agents.messages import Outcome, TaskOutcome
from celery_agents.pipeline import Pipeline
from celery_agents.presence import credit_the_dead, find_present, settle_carried_moves
from celery_agents.watch import Unwatched, Watch
from celery_agents.work import Work, still_open

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

    from celery_agents.gateway.project import Gateway

#: Agent tasks that are loaded together. A request line that lists so many stays below what front ends accept.
WINDOW = 100
#: Agent tasks after which a delivery commits where the one before has died: what the next crash repeats at most.
CAREFUL_COMMIT = 10

#: Told after each agent task how many of the batch are through and how many of those failed.
Report = Callable[[int, int], None]


def execute(
    batch: Batch,
    agent: Agent,
    encord: Gateway,
    report: Report,
    *,
    delivery: Delivery | None = None,
    watch: Watch | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Execution:
    """Execute *batch* and return what became of each of its agent tasks.

    Args:
        batch: The specs, and what earlier attempts decided.
        agent: The user's function and its options.
        encord: The project.
        report: Called after each agent task.
        delivery: What may be worked on and committed; by default everything.
        watch: Whether to go on, and for how long an agent may run; by default for ever.
        clock: Seconds, for the agent's ``commit_interval``.
    """
    entries = admit(batch, encord)
    works = [entry for entry in entries if isinstance(entry, Work)]
    stage, pause = _open_stage(works, agent, encord), 0.0
    delivery = delivery or Unledgered()
    if stage is not None:
        tally = _Tally(batch, entries, report)
        is_about_everything = encord.judge(is_last_attempt=agent.retry.is_used_up(batch.furthest_attempt))
        attempt = _Attempt(
            agent,
            stage,
            encord,
            is_about_everything,
            tally,
            delivery,
            watch or Unwatched(),
            clock,
        )
        pause = attempt.begin(works)
        batch = batch.after_crash() if delivery.is_careful() else batch
        if pause == 0:
            attempt.work_through(works, batch)
    return conclude(batch, entries, agent.retry, encord, stage.uuid if stage else None, pause)


def _open_stage(works: Sequence[Work], agent: Agent, encord: Gateway) -> AgentStage | None:
    try:
        return encord.agent_stage(agent.stage)
    except Exception as error:
        for work in works:
            work.fail(error, "load")
        return None


class _Tally:
    """Counts what is through, for the report."""

    def __init__(self, batch: Batch, entries: Iterable[Entry], report: Report) -> None:
        self._report = report
        decided = [*batch.carry.outcomes, *(entry for entry in entries if isinstance(entry, TaskOutcome))]
        self._done = len(decided)
        self._failed = sum(outcome.outcome is Outcome.FAILED for outcome in decided)

    def count(self, works: Sequence[Work]) -> None:
        before = self._done
        for work in works:
            # What its agent was told to leave is open, and has no answer.
            if work.is_answered or not work.is_open:
                self._done += 1
                self._failed += work.failure is not None
        if self._done > before:
            self._report(self._done, self._failed)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What all steps of one attempt need."""

    agent: Agent
    stage: AgentStage
    encord: Gateway
    is_about_everything: Callable[[Exception], bool]
    tally: _Tally
    delivery: Delivery
    watch: Watch
    clock: Callable[[], float]
    #: Whoever asks the delivery, as commits may be in several threads.
    asking: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, works: Sequence[Work]) -> float:
        """Find out what may be worked on, and return for how many seconds the stage is paused."""
        _refuse_strangers(works, self.stage, self.encord.project_hash)
        return self.delivery.begin(still_open(works), self.stage.uuid)

    def work_through(self, works: Sequence[Work], batch: Batch) -> None:
        """Do what can be done."""
        if self.watch.is_stopping():
            return
        settle_carried_moves(works, batch.carry.moves, self.stage, self.encord)
        self.commit([work for work in works if work.is_saved])
        self.tally.count([work for work in works if not work.is_open])
        # What may have killed an earlier delivery comes last, so that the others are done before.
        new = still_open(works)
        suspects = {work for work in new if self.delivery.is_suspect(work)}
        new.sort(key=suspects.__contains__)
        windows = [new[start : start + WINDOW] for start in range(0, len(new), WINDOW)]
        # After a crash one thing is done after the other, so that the next one is blamed on the right agent task.
        is_careful = self.delivery.is_careful()
        overlaps = len(windows) > 1 and not is_careful
        memory = 0 if is_careful else self.encord.media_memory
        way = choose(self.agent, is_careful=is_careful)
        with (
            fetching(self.agent.plan, new, memory) as fetch,
            Pipeline(
                windows,
                partial(self._read, fetch=fetch, is_after_crash=batch.carry.is_after_crash),
                overlaps=overlaps,
                clock=self.clock,
            ) as pipeline,
        ):
            turns = _Turns(self, pipeline, suspects)
            way(turns.in_order(), Calls(self.agent, self.stage, self.watch), turns)
            # What these come to is recorded with the end of the delivery.
            pipeline.commit(partial(self.commit, turns.answered), len(turns.answered))

    def _read(self, works: Sequence[Work], *, fetch: Fetcher, is_after_crash: bool) -> int:
        """Find out all that the agents of a window need; return how many bytes were received for that."""
        before = self.encord.bytes_received()
        listing = self.agent.label_row_options if self.agent.needs_label_rows else None
        find_present(works, self.stage, self.encord, listing)
        if is_after_crash:
            credit_the_dead(works, self.stage, self.encord)
        self._load(still_open(works))
        fetch(works)
        return self.encord.bytes_received() - before

    def _load(self, works: Sequence[Work]) -> None:
        loading = providers.Loading(
            self.encord,
            self.stage,
            self.agent.initialise_options,
            self.is_about_everything,
            self.watch,
            defers_writes=self.agent.deferred_saves,
        )
        try:
            providers.load(self.agent.plan.needs, works, loading)
        except Exception as error:
            for work in still_open(works):
                work.fail(error, "load")

    def commit(self, works: Sequence[Work], decided: Sequence[Work] = ()) -> None:
        """Commit *works*, in any thread, and remember what *decided* came to."""
        with self.asking:
            self.delivery.note(None)  # a crash from here on is nobody's
            held = self.delivery.held(still_open(works))
        commit(held, self.stage, self.encord, self.is_about_everything)
        if decided:
            with self.asking:
                self.delivery.settle(decided)
        for work in works:
            if not work.is_open:
                work.let_go()


class _Turns:
    """Lets agents begin, and has committed what they answered as it goes, so that a crash loses little.

    See ``calling.Turns``: however agents are called, all of this is on the thread that executes the batch.
    """

    def __init__(self, attempt: _Attempt, pipeline: Pipeline, suspects: Collection[Work]) -> None:
        self._attempt = attempt
        self._pipeline = pipeline
        self._suspects = suspects
        most = attempt.agent.commit_every
        #: how many may be answered and not committed
        self._most = min(most, CAREFUL_COMMIT) if attempt.delivery.is_careful() else most
        self._through = 0
        self._since = 0.0  #: when there was nothing answered and not handed over to be committed
        self._decided: list[Work] = []  #: before their turn, and not recorded yet
        self.answered: list[Work] = []  #: not handed over to be committed

    def in_order(self) -> Iterator[Work]:
        """Yield the agent tasks whose agents are to be called, each when it is read."""
        for window in self._pipeline:
            decided = [work for work in window if not work.is_open]
            self._decided.extend(decided)
            self._count(decided)
            yield from still_open(window)
            if self._attempt.watch.is_stopping():
                return

    def may_begin(self, works: Sequence[Work]) -> bool:
        if self._attempt.watch.is_stopping():
            return False
        if self._suspects and any(work in self._suspects for work in works):
            self._commit()
        self.catch_up()
        self._attempt.delivery.note(works[0])  # of use to careful deliveries only, and there each is alone
        return True

    def end(self, works: Sequence[Work]) -> None:
        for work in works:
            if work.is_answered:
                work.let_inputs_go()
                self.answered.append(work)
            elif not work.is_open:
                work.let_go()
        self._count(works)

    def _count(self, works: Sequence[Work]) -> None:
        self._attempt.tally.count(works)
        self._through += len(works)
        self._pipeline.keep_ahead(self._through)

    def catch_up(self) -> None:
        if not self.answered:
            self._since = self._attempt.clock()
        elif self._attempt.clock() - self._since >= self._attempt.agent.commit_interval:
            self._commit()
        if len(self.answered) >= WINDOW:
            self._hand_over()
        while len(self.answered) + self._pipeline.uncommitted >= self._most:
            if self._pipeline.uncommitted:
                self._pipeline.await_commit()
            else:
                self._commit()

    def _commit(self) -> None:
        """Commit what is answered before anything else begins."""
        self._hand_over()
        while self._pipeline.uncommitted:
            self._pipeline.await_commit()

    def _hand_over(self) -> None:
        """Have committed what is answered, and recorded what is decided."""
        if self.answered:
            commit = partial(self._attempt.commit, self.answered, [*self._decided, *self.answered])
            self._pipeline.commit(commit, len(self.answered))
            self.answered, self._decided, self._since = [], [], self._attempt.clock()


def _refuse_strangers(works: Sequence[Work], stage: AgentStage, project_hash: UUID) -> None:
    """A spec that says where it belongs must belong here; one made by hand need not say."""
    here = f"not for {stage.title!r} ({stage.uuid}) of project {project_hash}"
    # Numbers, see `batch.admit`.
    project, own = project_hash.int, stage.uuid.int
    for work in works:
        spec = work.spec
        if spec.project_hash is not None and spec.project_hash.int != project:
            work.fail(SpecError(f"This spec is for project {spec.project_hash}, {here}."), "spec")
        elif spec.stage_uuid is not None and spec.stage_uuid.int != own:
            work.fail(SpecError(f"This spec is for stage {spec.stage_uuid}, {here}."), "spec")
