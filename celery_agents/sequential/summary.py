"""What became of the agent tasks of one run: counted by outcome, with the errors of those that FAILED."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from celery_agents.errors import AgentTaskError
from celery_agents.messages import Outcome, TaskCompletionResult, TaskOutcome
from celery_agents.options import FailurePolicy
from celery_agents.verdicts import is_failure, sentence

#: How many failures of a stage are kept with their errors, the first: a run may go on for weeks. All are counted.
FAILURES_KEPT = 1_000


@dataclass(slots=True)
class StageSummary:
    """What became of the agent tasks of one stage."""

    stage: str  #: its title
    uuid: UUID
    counts: Counter[Outcome] = field(default_factory=Counter)
    failures: list[TaskOutcome] = field(default_factory=list, repr=False)  #: the first thousand that FAILED

    @property
    def total(self) -> int:
        """How many agent tasks were worked on; one that failed in two passes counts twice."""
        return self.counts.total()

    @property
    def failed(self) -> int:
        """How many of them FAILED."""
        return self.counts[Outcome.FAILED]

    def add(self, outcomes: Sequence[TaskOutcome]) -> None:
        """Count *outcomes*."""
        self.counts.update(each.outcome for each in outcomes)
        failures = [each for each in outcomes if each.outcome is Outcome.FAILED]
        self.failures += failures[: FAILURES_KEPT - len(self.failures)]

    def raise_for(self, policy: FailurePolicy) -> None:
        """Raise AgentTaskError where *policy* calls it a failure; it carries the failures that are kept."""
        if is_failure(self.failed, self.total, policy):
            told = sentence(self.failures, self.total, self.failed)
            result = TaskCompletionResult.from_outcomes(self.failures, self.uuid)
            raise AgentTaskError(f"Stage {self.stage!r}: {told}", result.model_dump_json(), self.total)

    def __str__(self) -> str:
        told = ", ".join(f"{self.counts[each]:,} {each}" for each in Outcome if self.counts[each])
        return f"{self.stage}: {told or 'nothing waits'}"


@dataclass(slots=True, repr=False)
class RunSummary:
    """What became of the agent tasks of one run, stage by stage; ``str()`` says it on one line."""

    stages: list[StageSummary] = field(
        default_factory=list
    )  #: in the order in which their agents were declared

    @property
    def counts(self) -> Counter[Outcome]:
        """How many agent tasks have which outcome."""
        return sum((each.counts for each in self.stages), Counter())

    @property
    def total(self) -> int:
        """How many agent tasks were worked on."""
        return sum(each.total for each in self.stages)

    @property
    def failed(self) -> int:
        """How many of them FAILED."""
        return sum(each.failed for each in self.stages)

    @property
    def failures(self) -> list[TaskOutcome]:
        """Those that FAILED, with their errors; of each stage the first thousand."""
        return [outcome for each in self.stages for outcome in each.failures]

    def __str__(self) -> str:
        return "; ".join(map(str, self.stages))

    def __repr__(self) -> str:
        return f"<RunSummary {self}>"
