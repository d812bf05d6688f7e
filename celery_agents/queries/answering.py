"""Answer a query by its policy: who is asked first, and what is left to whom comes second."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from uuid import UUID

from celery_agents.errors import ExpiredError, SetupError
from celery_agents.messages import Outcome, TaskOutcome
from celery_agents.policies import ROUTES, ExecutionPolicy, Route
from celery_agents.queries.local import run_here
from celery_agents.queries.others import outcome_by_other
from celery_agents.queries.question import (
    Answer,
    ImpossibleError,
    Outcomes,
    Question,
    UncertainError,
    read_spec,
    stage_of,
)
from celery_agents.queries.remote import ask_workers
from celery_agents.task import StageTask
from celery_agents.waiting import Deadline

logger = logging.getLogger(__name__)


def query_many(
    task: StageTask,
    specs: Sequence[object],
    *,
    policy: ExecutionPolicy = ExecutionPolicy.AUTO,
    timeout: float | None = None,
    once: bool = False,
) -> list[TaskOutcome]:
    """Return what became of each of *specs*, in their order; see ``QueueRunner.query_many``."""
    deadline = Deadline(timeout)
    read = [read_spec(raw, task) for raw in specs]
    if not read:
        return []
    texts = {spec.uuid: spec.encode() for spec in read}
    question = Question(task, texts, deadline, once, stage_of(task, read))
    # What is sent with task_always_eager runs here as well.
    chosen = ExecutionPolicy.LOCAL if task.app.conf.task_always_eager else ExecutionPolicy(policy)
    outcomes = _answer(question, ROUTES[chosen])
    missing = [uuid for uuid in texts if uuid not in outcomes]
    if missing:
        raise ExpiredError(_too_late(len(missing), len(texts), timeout, task.queue_name), outcomes)
    return [outcomes[spec.uuid] for spec in read]


def _too_late(missing: int, total: int, timeout: float | None, queue: str) -> str:
    within = "in time" if timeout is None else f"within {timeout:g} s"
    return (
        f"{missing} of {total} agent tasks have no outcome {within}. Those that waited in queue {queue!r} were taken "
        "back or expire there; one that a worker has begun may still be done."
    )


def _answer(question: Question, route: Route) -> Outcomes:
    outcomes: Outcomes = {}
    for number, who in enumerate(route.tries):
        is_last = number == len(route.tries) - 1
        wanted = _still_wanted(question, outcomes, route)
        if not wanted or (number and question.deadline.is_over()):
            break
        begin_by = _begin_by(question, route, is_first=number == 0, is_last=is_last)
        try:
            outcomes |= _try(question, who, wanted, begin_by)
        except (ImpossibleError, SetupError) as error:
            # Of what FAILED at the first try there is an answer.
            if isinstance(error, UncertainError) or (is_last and not outcomes.keys() >= set(wanted)):
                raise _told(error) from None
            logger.info("A query of %s is not answered %s: %s", question.task.name, who, error)
    return outcomes


def _still_wanted(question: Question, outcomes: Outcomes, route: Route) -> list[UUID]:
    def is_wanted(outcome: TaskOutcome | None) -> bool:
        return outcome is None or (route.after_failure and outcome.outcome is Outcome.FAILED)

    return [uuid for uuid in question.specs if is_wanted(outcomes.get(uuid))]


def _begin_by(question: Question, route: Route, *, is_first: bool, is_last: bool) -> Deadline | None:
    """Return until when a message may wait for its worker; None where a worker is all that is left to be asked."""
    if is_first and is_last:
        return None
    if is_last:
        return question.deadline
    left = question.seconds_left
    return Deadline(None if left == float("inf") else left * route.share_in_queue)


def _try(
    question: Question, who: ExecutionPolicy, task_uuids: Collection[UUID], begin_by: Deadline | None
) -> Outcomes:
    """Have these answered as far as possible; what another message has is waited for, and tried when it gives it up."""
    outcomes: Outcomes = {}
    wanted = list(task_uuids)
    while wanted and not question.deadline.is_over():
        answer = _ask(question, who, wanted, begin_by)
        outcomes |= answer.outcomes
        wanted = []
        for uuid, message_id in answer.held.items():
            outcome = outcome_by_other(question, uuid, message_id)
            if outcome is None:
                wanted.append(uuid)
            else:
                outcomes[uuid] = outcome
    return outcomes


def _ask(
    question: Question, who: ExecutionPolicy, task_uuids: Collection[UUID], begin_by: Deadline | None
) -> Answer:
    if who is ExecutionPolicy.LOCAL:
        return run_here(question, task_uuids)
    return ask_workers(question, task_uuids, begin_by)


def _told(error: Exception) -> Exception:
    return error if isinstance(error, SetupError) else SetupError(str(error))
