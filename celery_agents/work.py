"""One agent task on its way through a batch: a record that loading, running and committing fill in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery_agents.tracebacks import clear_frames

if TYPE_CHECKING:
    from encord.objects.ontology_labels_impl import LabelRowV2
    from encord.workflow.stages.agent import AgentPathway

    from celery_agents.dependencies.plan import Plan
    from celery_agents.gateway.listing import Listed
    from celery_agents.gateway.staging import StagedBundle
    from celery_agents.messages import Outcome, Step, TaskError, TaskOutcome, TaskSpec
    from celery_agents.progress import Progress


@dataclass(slots=True, eq=False)
class Work:
    """What is known of one agent task of the batch.

    It is open until it has an ``outcome`` (decided for good) or a ``failure`` (decided when the batch is concluded:
    another try, or FAILED).
    """

    raw: object  #: the spec as it came
    spec: TaskSpec
    new_bundle: Callable[[], StagedBundle]  #: makes ``staged``
    values: dict[str | Plan, Any] = field(default_factory=dict)  #: injectable type -> value
    listed: Listed | None = None  #: fresh from Encord, where it had to be asked for
    row: LabelRowV2 | None = None
    pathway: AgentPathway | None = None  #: where its agent sends it
    priority: float | None = None
    progress: Progress | None = None  #: what its agent tells it by, where it asks for that
    is_answered: bool = False  #: its agent has run and its writes may be sent
    is_moved_by_agent: bool = False  #: its agent staged a ``task.move`` of its own
    is_saved: bool = False  #: nothing but its move is left to do
    outcome: TaskOutcome | None = None
    failure: Failure | None = None
    _staged: StagedBundle | None = None

    @property
    def staged(self) -> StagedBundle:
        """The writes of its agent, held back; made when they are asked for, as most agents leave writing to us."""
        if self._staged is None:
            self._staged = self.new_bundle()
        return self._staged

    @property
    def has_staged(self) -> bool:
        """Whether anybody has asked for ``staged``, and so may have put something in."""
        return self._staged is not None

    @property
    def is_open(self) -> bool:
        """Whether there is still something to do for it."""
        return self.outcome is None and self.failure is None

    def decide(
        self,
        outcome: Outcome,
        detail: str | None = None,
        error: TaskError | None = None,
        earlier_errors: tuple[TaskError, ...] = (),
    ) -> None:
        """Settle what became of it."""
        pathway = self.pathway if outcome == "PROCEEDED" else None
        self.outcome = self.spec.decided(
            outcome,
            pathway=pathway.uuid if pathway else None,
            pathway_name=pathway.name if pathway else None,
            detail=detail,
            error=error,
            earlier_errors=earlier_errors,
            progress=self.progress.latest if self.progress else None,
        )

    def fail(self, error: BaseException, step: Step) -> None:
        """Note what went wrong; whether that is the end is decided when the batch is concluded.

        An agent that was told to stop, because its message was cancelled or has expired, did not fail: it stays open.
        """
        is_told_to_stop = self.progress is not None and self.progress.is_told_to_stop
        # An agent that is called with many is told for one of them, and leaves all.
        if not (is_told_to_stop or getattr(error, "leaves_agent_task", False)):
            clear_frames(error)
            self.failure = Failure(error, step)

    def let_inputs_go(self) -> None:
        """Give up what its agent was called with, now that it is through: those that follow need the room."""
        self.values = {}

    def let_go(self) -> None:
        """Give up all that its agent needed and wrote, now that it is decided."""
        self.let_inputs_go()
        if self._staged is not None:
            self._staged.clear()  # an agent that was given up may have it still, and send it
        self.listed = self.row = self._staged = None


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with one agent task, and where."""

    error: BaseException
    step: Step


def still_open(works: Iterable[Work]) -> list[Work]:
    """Return those of *works* for which there is something left to do."""
    return [work for work in works if work.is_open]
