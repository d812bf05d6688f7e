"""What a worker stores, made by hand."""

from __future__ import annotations

from uuid import UUID, uuid4

from celery_agents.errors import AgentTaskError, RetryingError
from celery_agents.messages import Outcome, TaskCompletionResult, TaskError, TaskOutcome

STAGE = UUID(int=7)


def outcome(kind: Outcome = Outcome.PROCEEDED) -> TaskOutcome:
    error = TaskError(type="builtins.ValueError", detail="no box found") if kind is Outcome.FAILED else None
    return TaskOutcome(outcome=kind, task_uuid=uuid4(), data_title="a title", error=error)


def outcomes(*, proceeded: int = 0, held: int = 0, gone: int = 0, failed: int = 0) -> list[TaskOutcome]:
    numbers = {Outcome.PROCEEDED: proceeded, Outcome.HELD: held, Outcome.GONE: gone, Outcome.FAILED: failed}
    return [outcome(kind) for kind, number in numbers.items() for _ in range(number)]


def completion(**numbers: int) -> str:
    return TaskCompletionResult.from_outcomes(outcomes(**numbers), STAGE).model_dump_json()


def failure(**numbers: int) -> AgentTaskError:
    return AgentTaskError("every agent task failed", completion(**numbers))


def retrying(**numbers: int) -> RetryingError:
    return RetryingError("2 of 5 agent tasks go round again", completion(**numbers))
