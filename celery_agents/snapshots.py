"""What a result backend holds for one message, read once and put into our words.

Pure: a stored result goes in, a ``Snapshot`` comes out. Nothing here asks a backend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from celery_agents.errors import AgentsError, CarriesResultError, ResultNotReadyError
from celery_agents.messages import (
    TRACEBACK_LIMIT,
    Outcome,
    ProgressReport,
    TaskCompletionResult,
    TaskError,
    TaskOutcome,
)
from celery_agents.redaction import bounded, excerpt, redact
from celery_agents.status import PROGRESS, Status, status_of

#: What ``backends.read`` gives for a message: Celery's result meta, or why that cannot be decoded.
Stored = Mapping[str, Any] | Exception

#: The state of a snapshot whose stored result cannot be decoded, so that Celery's state is not known.
UNREADABLE = "UNREADABLE"

#: Longest reason why a stored result is not readable, in characters; some decoders repeat the whole of it.
WHY_LIMIT = 200

#: Key of an error: an agent task, or text where there is none, see ``Snapshot.errors``.
ErrorKey = UUID | str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was known of a message at one moment.

    Attributes:
        id: The message's Celery id.
        state: Celery's state, or ``UNREADABLE``.
        status: What it means. A stored result that is not ours (another task's, or garbage) is FAILED: nothing can
            be said of any agent task, and waiting longer will not help.
        progress: How far it is, or None where nothing is known. ``total`` is 0 where nobody has said how many
            agent tasks the message carries.
        completion: The completion result; of a RETRYING message, what is decided so far.
        failure: The exception that Celery stores for FAILURE, REVOKED and RETRY, or why the result is not readable.
        traceback: The traceback that Celery stores with it.
    """

    id: str
    state: str
    status: Status
    progress: ProgressReport | None = None
    completion: TaskCompletionResult | None = None
    failure: BaseException | None = None
    traceback: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether it stays so."""
        return self.status.is_final

    @property
    def is_settled(self) -> bool:
        """Whether nothing more will be known."""
        # Celery stores REVOKED as soon as a worker hears of it; outcomes follow when one meets the message, or ends it.
        return self.is_final and not (self.status is Status.CANCELLED and self.completion is None)

    @property
    def outcomes(self) -> list[TaskOutcome]:
        """The outcomes that are decided: all of a message that ran to its end, a part where it is RETRYING.

        Raises:
            ResultNotReadyError: There are none: not yet, or, for a message that was cancelled, expired or died, never.
        """
        if self.completion is None or not (self.is_final or self.completion.outcomes):
            raise ResultNotReadyError(self._no_outcomes())
        return self.completion.outcomes

    def _no_outcomes(self) -> str:
        if self.failure is not None and self.is_final:
            return f"Message {self.id} is {self.status} without an outcome for any agent task: {self.detail}"
        return f"Message {self.id} is {self.status}: no agent task has an outcome yet."

    @property
    def errors(self) -> dict[ErrorKey, TaskError]:
        """Why agent tasks FAILED, by agent task UUID; never raises.

        A spec that could not be read has no UUID: its key is ``"<message id>#<position in the batch>"``. Where the
        message ended without outcomes, the one entry has the message's id as its key.
        """
        found: dict[ErrorKey, TaskError] = {}
        for position, outcome in enumerate(self.completion.outcomes if self.completion else ()):
            if outcome.error is not None:
                found[outcome.task_uuid or f"{self.id}#{position}"] = outcome.error
        if self.completion is None and self.failure is not None and self.is_final:
            found[self.id] = self._message_error(self.failure)
        return found

    def _message_error(self, failure: BaseException) -> TaskError:
        trace = excerpt(self.traceback, TRACEBACK_LIMIT) if self.traceback else None
        return TaskError.from_exception(failure, "agent").model_copy(update={"traceback": trace})

    @property
    def detail(self) -> str | None:
        """One sentence on why the message failed, was cancelled, or is going round again; else None."""
        if self.failure is None:
            return None
        error = TaskError.from_exception(self.failure, "agent")
        if type(self.failure).__name__ == "NotRegistered":
            return f"NotRegistered: the worker that got it has no task {error.detail}; its sender runs other code."
        is_ours = isinstance(self.failure, AgentsError)
        return error.detail if is_ours else f"{type(self.failure).__name__}: {error.detail}"

    @property
    def counts(self) -> Counter[Outcome]:
        """How many agent tasks had which outcome, of those decided."""
        return Counter(each.outcome for each in (self.completion.outcomes if self.completion else ()))

    @property
    def result(self) -> TaskCompletionResult:
        """The completion result of a message that succeeded, wholly or partly.

        Raises:
            ResultNotReadyError: The message has not ended.
            AgentTaskError: It failed; the error carries the completion result.
            AgentsError: What is stored is not a completion result.
            Exception: What Celery stored instead: TaskRevokedError, WorkerLostError, TimeLimitExceeded and others.
        """
        if not self.is_final:
            raise ResultNotReadyError(f"Message {self.id} is {self.status}: it has no result yet.")
        if self.failure is not None:
            raise self.failure
        if self.completion is None:
            raise ResultNotReadyError(self._no_outcomes())  # IGNORED and REJECTED: Celery stores nothing more
        return self.completion

    def as_dict(self) -> dict[str, Any]:
        """This snapshot as a JSON object; ``outcomes`` is null where there are none."""
        return {
            "id": self.id,
            "state": self.state,
            "status": self.status.value,
            "progress": self.progress.model_dump(mode="json") if self.progress else None,
            "counts": {outcome.value: count for outcome, count in sorted(self.counts.items())},
            "detail": self.detail,
            "outcomes": _dumped(self.completion),
            "errors": {str(key): error.model_dump(mode="json") for key, error in self.errors.items()},
        }


def _dumped(completion: TaskCompletionResult | None) -> list[dict[str, Any]] | None:
    if completion is None:
        return None
    return [each.model_dump(mode="json") for each in completion.outcomes]


def snapshot_of(
    message_id: str, stored: Stored, *, total: int | None = None, seen: ProgressReport | None = None
) -> Snapshot:
    """Put what is stored for a message into our words.

    Args:
        message_id: The message.
        stored: What its backend holds, see ``backends.read``.
        total: How many specs it carries, where that is known: then PENDING means QUEUED.
        seen: Its progress when it was last looked at: the backend keeps only the latest state, and FAILURE, REVOKED
            and a new attempt's STARTED say nothing about progress.
    """
    if isinstance(stored, Exception):
        return _unreadable(message_id, UNREADABLE, str(stored) or type(stored).__name__, total, seen)
    state, value = str(stored["status"]), stored.get("result")
    failure = value if isinstance(value, BaseException) else None
    try:
        completion = _completion_in(value) if state == "SUCCESS" else _carried_by(failure)
    except ValueError as error:
        return _unreadable(message_id, state, str(error), total, seen)
    failed = sum(each.outcome is Outcome.FAILED for each in completion.outcomes) if completion else 0
    return Snapshot(
        id=message_id,
        state=state,
        status=status_of(state, error=_error_name(failure), failed=failed, is_known=total is not None),
        progress=_progress(state, value, completion, total or getattr(failure, "total", None), seen),
        completion=completion,
        failure=failure,
        traceback=stored.get("traceback"),
    )


def _unreadable(
    message_id: str, state: str, why: str, total: int | None, seen: ProgressReport | None
) -> Snapshot:
    one_line = bounded(" ".join(redact(why).split()), WHY_LIMIT).replace("\n", " ")
    sentence = (
        f"What is stored for message {message_id} is not a result of celery_agents ({one_line}); "
        "is it the id of another task?"
    )
    return Snapshot(
        id=message_id,
        state=state,
        status=Status.FAILED,
        progress=_progress(state, None, None, total, seen),
        failure=AgentsError(sentence),
    )


def _completion_in(value: object) -> TaskCompletionResult:
    if not isinstance(value, str):
        raise ValueError(f"it is of type {type(value).__name__}")  # noqa: TRY004  # a value, not an argument
    try:
        completion = TaskCompletionResult.model_validate_json(value)
    except ValidationError:
        raise ValueError("it is other text") from None
    # Every field has a default, so any JSON object would do.
    if "outcomes" not in completion.model_fields_set:
        raise ValueError("it has no outcomes")
    return completion


def _carried_by(failure: BaseException | None) -> TaskCompletionResult | None:
    if not isinstance(failure, CarriesResultError):
        return None
    try:
        return failure.result
    except ValidationError:
        return None  # the sentence beside it still tells what happened


def _error_name(failure: BaseException | None) -> str | None:
    if failure is None:
        return None
    name = type(failure).__name__
    # Celery stores TaskRevokedError('expired') for a message whose `expires` has passed.
    return f"{name}: expired" if failure.args[:1] == ("expired",) else name


def _progress(
    state: str,
    value: object,
    completion: TaskCompletionResult | None,
    total: int | None,
    seen: ProgressReport | None,
) -> ProgressReport | None:
    if completion is not None:
        return _progress_of(completion, state, total or (seen.total if seen else 0))
    reported = _reported(value) if state == PROGRESS else None
    if reported is not None or seen is not None:
        return reported or seen
    return None if total is None else ProgressReport(total=total)


def _progress_of(completion: TaskCompletionResult, state: str, total: int) -> ProgressReport:
    done = len(completion.outcomes)
    told = {each.task_uuid: each.progress for each in completion.outcomes if each.task_uuid and each.progress}
    failed = sum(each.outcome is Outcome.FAILED for each in completion.outcomes)
    return ProgressReport(
        done=done, failed=failed, total=total if state == "RETRY" else max(done, total), tasks=told
    )


def _reported(value: object) -> ProgressReport | None:
    try:
        return ProgressReport.model_validate(value)
    except ValidationError:
        return None
