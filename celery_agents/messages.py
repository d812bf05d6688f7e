"""What crosses a process: task specs, outcomes, progress, and the completion result of a message.

Every type here decodes and encodes itself as JSON and is frozen. Unknown fields are ignored and new fields have
defaults, so that yesterday's message is read by today's worker and the other way round.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from celery_agents.errors import SpecError
from celery_agents.redaction import bounded, redact

#: Longest traceback kept of one agent task, in characters: enough for about 40 frames.
TRACEBACK_LIMIT = 6_000
#: Longest detail kept of an error, in characters.
DETAIL_LIMIT = 2_000
#: Longest piece of an undecodable spec that its outcome keeps, in characters; a real spec has about 400.
RAW_SPEC_LIMIT = 10_000


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TaskSpec(_Wire):
    """The serialised form of an agent task: what ``AgentTask.model_dump_json()`` gives.

    ``project_hash`` and ``stage_uuid`` are added by our producer, so that a spec sent to the wrong agent is refused;
    a spec made by hand may leave them out.
    """

    uuid: UUID
    data_hash: UUID
    data_title: str
    label_branch_name: str
    created_at: datetime | None = None
    updated_at: datetime | None = None
    status: str | None = None
    assignee: str | None = None
    last_actioned_by: str | None = None
    project_hash: UUID | None = None
    stage_uuid: UUID | None = None

    @classmethod
    def decode(cls, raw: object) -> TaskSpec:
        """Read a spec from JSON text, or from the JSON object itself.

        Raises:
            SpecError: It is not JSON, not an object, or a field is missing or wrong; the sentence names which.
        """
        try:
            if isinstance(raw, str | bytes):
                return cls.model_validate_json(raw)
            if isinstance(raw, Mapping):
                return cls.model_validate(raw)
        except ValidationError as error:
            raise SpecError(_spec_complaint(error)) from None
        raise SpecError(
            "A task spec is JSON text or a JSON object, as AgentTask.model_dump_json() gives it, "
            f"not {type(raw).__name__}."
        )


def _spec_complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    what = f"field {where!r}: {first['msg']}" if where else first["msg"]
    return f"Not a task spec ({what}); send what AgentTask.model_dump_json() gives."


class Outcome(StrEnum):
    """What became of one agent task."""

    PROCEEDED = "PROCEEDED"  #: moved along a pathway
    HELD = "HELD"  #: the agent returned None: it stays where it is
    GONE = "GONE"  #: no longer at this stage: somebody else moved it, or an earlier delivery did
    FAILED = "FAILED"  #: see its error

    @property
    def is_success(self) -> bool:
        """Whether the agent's answer for this agent task was carried out."""
        return self in (Outcome.PROCEEDED, Outcome.HELD)


#: Where an agent task was when it failed: reading its spec, loading what the agent needs, in the user's function
#: (or its dependencies), reading its answer, saving labels and other writes, or moving it along its pathway.
Step = Literal["spec", "load", "agent", "answer", "save", "move"]


class TaskError(_Wire):
    """Why one agent task failed: exception class, text and traceback, bounded and without secrets."""

    type: str  #: import path of the exception's class, such as ``builtins.ValueError``
    detail: str
    traceback: str | None = None
    step: Step = "agent"
    attempt: int = 1  #: which run of the message this was, counted from 1
    transient: bool = False  #: whether trying again later may help

    @classmethod
    def from_exception(
        cls, error: BaseException, step: Step, *, attempt: int = 1, transient: bool = False
    ) -> TaskError:
        """Describe *error*; the traceback is kept where user code may have raised it."""
        kind = type(error)
        text = "".join(traceback.format_exception(error)) if error.__traceback__ is not None else None
        return cls(
            type=f"{kind.__module__}.{kind.__qualname__}",
            detail=bounded(redact(str(error) or kind.__name__), DETAIL_LIMIT),
            traceback=bounded(redact(text), TRACEBACK_LIMIT) if text else None,
            step=step,
            attempt=attempt,
            transient=transient,
        )


class TaskOutcome(_Wire):
    """What became of one agent task. A batch of one has one of these, a batch of many has many."""

    outcome: Outcome
    task_uuid: UUID | None = None  #: None only where the spec could not be read
    data_hash: UUID | None = None
    data_title: str | None = None
    pathway: UUID | None = None  #: where PROCEEDED went
    pathway_name: str | None = None
    detail: str | None = None  #: a sentence where the outcome alone does not say enough
    error: TaskError | None = None  #: why it FAILED
    earlier_errors: tuple[TaskError, ...] = ()  #: what went wrong in the attempts before, oldest first
    spec: str | None = None  #: the spec as it came, where it could not be read


class Progress(_Wire):
    """How far a message is. ``done`` counts every agent task that has an outcome, ``failed`` those that FAILED."""

    done: int = 0
    failed: int = 0
    total: int = 0
    text: str | None = None
    at: datetime | None = None  #: when this was written, in UTC


class Carry(_Wire):
    """What a message takes along when it is retried: nothing decided is decided again.

    ``moves`` are agent tasks whose labels are saved and whose pathway is known, but whose move did not get through:
    their agent does not run again.
    """

    outcomes: tuple[TaskOutcome, ...] = ()
    moves: dict[UUID, UUID] = Field(default_factory=dict)  #: agent task -> pathway
    errors: dict[UUID, tuple[TaskError, ...]] = Field(default_factory=dict)  #: agent task -> attempts so far
    attempt: int = 1  #: which try of the message comes next, counted from 1; being interrupted is no try


class TaskCompletionResult(_Wire):
    """The result of a message, in encord-agents' shape: scalars for one agent task, lists for many.

    ``outcomes`` is ours and the better source: one entry for each agent task, in the order of the specs.
    """

    task_uuid: UUID | list[UUID] | None = None
    stage_uuid: UUID | None = None
    success: bool | list[UUID] = False  #: for many: those whose answer was carried out
    pathway: UUID | list[UUID] | None = None  #: for many: the pathways taken, without gaps
    error: str | None = None  #: text of what went wrong, None where nothing FAILED
    outcomes: list[TaskOutcome] = Field(default_factory=list)

    @classmethod
    def from_outcomes(cls, outcomes: Sequence[TaskOutcome], stage_uuid: UUID | None) -> TaskCompletionResult:
        """Put *outcomes* into encord-agents' shape."""
        error = _error_text(outcomes)
        if len(outcomes) == 1:
            only = outcomes[0]
            return cls(
                task_uuid=only.task_uuid,
                stage_uuid=stage_uuid,
                success=only.outcome.is_success,
                pathway=only.pathway,
                error=error,
                outcomes=[only],
            )
        return cls(
            task_uuid=[each.task_uuid for each in outcomes if each.task_uuid],
            stage_uuid=stage_uuid,
            success=[each.task_uuid for each in outcomes if each.task_uuid and each.outcome.is_success],
            pathway=[each.pathway for each in outcomes if each.pathway],
            error=error,
            outcomes=list(outcomes),
        )


def _error_text(outcomes: Sequence[TaskOutcome]) -> str | None:
    failed = [each for each in outcomes if each.outcome is Outcome.FAILED and each.error]
    if not failed:
        return None
    if len(outcomes) == 1:
        error = failed[0].error
        assert error is not None  # chosen above
        return error.traceback or f"{error.type}: {error.detail}"
    return "\n".join(
        f"{each.task_uuid or 'unreadable spec'}: {each.error.type}: {each.error.detail}"  # type: ignore[union-attr]
        for each in failed
    )


def as_specs(raw: object) -> list[object]:
    """Return the specs that a message carries: the elements of a list, or *raw* itself as the only one.

    What is no spec is found out when it is decoded, so that it fails alone.
    """
    return list(raw) if isinstance(raw, list | tuple) else [raw]


def raw_text(raw: object) -> str:
    """Return *raw*, an unreadable spec, as bounded text for its outcome, so that it is not lost."""
    if isinstance(raw, str):
        text = raw
    elif isinstance(raw, bytes):
        text = raw.decode(errors="replace")
    else:
        text = json.dumps(raw, default=_type_name)
    return bounded(redact(text), RAW_SPEC_LIMIT)


def _type_name(value: Any) -> str:
    return f"<{type(value).__name__}>"
