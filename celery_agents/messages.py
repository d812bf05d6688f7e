"""What crosses a process: task specs, outcomes, progress, and the completion result of a message.

Every type here decodes and encodes itself as JSON and is frozen. Unknown fields are ignored and new fields have
defaults, so that yesterday's message is read by today's worker and the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from celery_agents.errors import SpecError
from celery_agents.redaction import bounded, excerpt
from celery_agents.tracebacks import NAME_LIMIT, name_of, text_of, traceback_of

#: Longest traceback kept of one agent task, in characters: enough for about 40 frames.
TRACEBACK_LIMIT = 6_000
#: Longest detail kept of an error, in characters.
DETAIL_LIMIT = 2_000
#: Longest text kept of what an agent tells of its progress, in characters.
PROGRESS_TEXT_LIMIT = 200
#: Longest piece of an undecodable spec that its outcome keeps, in characters; a real spec has about 400.
RAW_SPEC_LIMIT = 10_000
#: Longest spec that is read, in bytes, where the app has not set ``agents_max_spec_bytes``.
MAX_SPEC_BYTES = 64 * 1024
#: Most specs that one message may carry. Real ones fill the default of ``agents_max_message_bytes`` with half as many.
MOST_SPECS = 100_000
#: Most errors of earlier attempts that a message may bring for one agent task: ten weeks of retries every ten minutes.
MOST_ERRORS = 10_000
#: Highest number of attempts that is counted: 19 years of retries ten minutes apart.
MOST_ATTEMPTS = 1_000_000
#: Of how many earlier attempts a message takes along what went wrong, for each agent task: the first and the last ones.
#: More than an agent task has by default, see ``RetryPolicy.max_retries``.
ERRORS_TOLD = 20


#: What a spec may come as. Tuples: a union would be put together anew for each spec.
_TEXT = (str, bytes)
_READABLE = (*_TEXT, Mapping)


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
    def decode(cls, raw: object, max_bytes: int | None = None) -> TaskSpec:
        """Read a spec from JSON text, or from the JSON object itself.

        Args:
            raw: The spec as it came.
            max_bytes: How long it may be; None where it has been read before.

        Raises:
            SpecError: It is too long, not JSON, not an object, or a field is missing or wrong; the
                sentence names which.
        """
        if not isinstance(raw, _READABLE):
            raise SpecError(
                "A task spec is JSON text or a JSON object, as AgentTask.model_dump_json() gives it, "
                f"not {type(raw).__name__}."
            )
        try:
            # A JSON object is written again: what cannot be written (a lone surrogate) could not be sent on either.
            text = raw if isinstance(raw, _TEXT) else _json(raw)
            size = _size(text)
            if max_bytes is None or size <= max_bytes:
                return cls.model_validate_json(text)
        except ValidationError as error:
            complaint = _complaint(error)
        except (ValueError, RecursionError) as error:
            complaint = f"it cannot be written as JSON: {type(error).__name__}"
        else:
            raise SpecError(
                f"This task spec has {size:,} bytes; one of more than {max_bytes:,} is not read (the setting "
                "agents_max_spec_bytes). A real one has some hundred."
            )
        raise SpecError(f"Not a task spec ({complaint}); send what AgentTask.model_dump_json() gives.")

    def encode(self) -> str:
        """Return this spec as JSON text, without what nobody has set."""
        return self.model_dump_json(exclude_none=True)

    def decided(self, outcome: Outcome, **told: Any) -> TaskOutcome:
        """Return what became of this agent task; *told* are further fields of ``TaskOutcome``."""
        return TaskOutcome(
            outcome=outcome,
            task_uuid=self.uuid,
            data_hash=self.data_hash,
            data_title=self.data_title,
            **told,
        )


def _json(raw: Any) -> str:
    return json.dumps(raw, default=_plain, skipkeys=True)


def _plain(value: Any) -> str:
    """Return what kombu's JSON makes objects of as the text it was; a thing that is in no JSON by its type's name."""
    return str(value) if isinstance(value, UUID | datetime) else f"<{type(value).__name__}>"


def _size(text: str | bytes) -> int:
    if isinstance(text, bytes) or text.isascii():
        return len(text)
    return len(text.encode(errors="surrogatepass"))


def _complaint(error: ValidationError) -> str:
    # Without what was given: it may be long, and not for logs.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = bounded(".".join(str(part) for part in first["loc"]), NAME_LIMIT)
    return f"field {where!r}: {first['msg']}" if where else first["msg"]


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


def _at_most(limit: int) -> AfterValidator:
    return AfterValidator(partial(bounded, limit=limit))


#: A number of attempts; one beyond all counts as the highest that there is.
Attempts = Annotated[int, Field(ge=1), AfterValidator(lambda number: min(number, MOST_ATTEMPTS))]


class TaskError(_Wire):
    """Why one agent task failed: exception class, text and traceback, bounded and without secrets."""

    #: import path of the exception's class, such as ``builtins.ValueError``
    type: Annotated[str, _at_most(NAME_LIMIT)]
    detail: Annotated[str, _at_most(DETAIL_LIMIT)]
    traceback: Annotated[str, _at_most(TRACEBACK_LIMIT)] | None = None
    step: Step = "agent"
    attempt: int = 1  #: which run of the message this was, counted from 1
    transient: bool = False  #: whether trying again later may help
    #: how many attempts in a row this stands for: of many only the first and the last ones are told one by one
    times: Attempts = 1

    @classmethod
    def from_exception(
        cls, error: BaseException, step: Step, *, attempt: int = 1, transient: bool = False
    ) -> TaskError:
        """Describe *error*; the traceback is kept where user code may have raised it."""
        return cls(
            type=name_of(error),
            detail=text_of(error, DETAIL_LIMIT),
            traceback=traceback_of(error, TRACEBACK_LIMIT) if error.__traceback__ is not None else None,
            step=step,
            attempt=attempt,
            transient=transient,
        )


def tries(errors: Iterable[TaskError]) -> int:
    """Return how many attempts *errors* tell of."""
    return sum(error.times for error in errors)


class TaskProgress(_Wire):
    """How far one agent task is, as its agent told it last; in whatever unit the agent counts."""

    current: float
    total: float  #: 0 where nobody knows
    text: Annotated[str, AfterValidator(lambda text: excerpt(text, PROGRESS_TEXT_LIMIT))] | None = None
    at: datetime  #: when it was told, in UTC


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
    progress: TaskProgress | None = None  #: what its agent told last, where it tells of its progress


class ProgressReport(_Wire):
    """How far a message is. ``done`` counts every agent task that has an outcome, ``failed`` those that FAILED.

    ``tasks`` has what agents tell of single agent tasks, by ``Progress.update``, in the order in which it was told:
    while the message runs of the hundred that were told of last, and once it has ended of all.
    """

    done: int = 0
    failed: int = 0
    total: int = 0
    text: str | None = None  #: what was told last of any agent task
    at: datetime | None = None  #: when this was written, in UTC
    tasks: dict[UUID, TaskProgress] = Field(default_factory=dict, max_length=MOST_SPECS)


class Carry(_Wire):
    """What a message takes along when it is retried: nothing decided is decided again.

    ``moves`` are agent tasks whose labels are saved and whose pathway is known, but whose move did not get through:
    their agent does not run again.
    """

    outcomes: Annotated[tuple[TaskOutcome, ...], Field(max_length=MOST_SPECS)] = ()
    #: agent task -> pathway
    moves: dict[UUID, UUID] = Field(default_factory=dict, max_length=MOST_SPECS)
    #: agent task -> attempts so far
    errors: dict[UUID, Annotated[tuple[TaskError, ...], Field(max_length=MOST_ERRORS)]] = Field(
        default_factory=dict, max_length=MOST_SPECS
    )
    #: which try of the message comes next, counted from 1; being interrupted is no try
    attempt: Attempts = 1
    #: Whether a delivery of the message has died. It may have moved some and not have told.
    is_after_crash: bool = False

    @classmethod
    def decode(cls, raw: object) -> Self:
        """Read what came with a message, or make an empty one of what did not.

        Raises:
            SpecError: It is not what ``encode`` gives; the sentence says why.
        """
        try:
            return cls.model_validate_json(_json(raw)) if raw else cls()
        except ValidationError as error:
            complaint = _complaint(error)
        except (ValueError, RecursionError) as error:
            complaint = f"it cannot be written as JSON: {type(error).__name__}"
        raise SpecError(
            f"What it carries of its earlier attempts cannot be read ({complaint}); send its specs anew, without."
        )

    def encode(self) -> dict[str, Any]:
        """Return this as the JSON object that travels, with so little of each error that no retry makes it longer."""
        errors = {uuid: _shortened(history) for uuid, history in self.errors.items()}
        return self.model_copy(update={"errors": errors}).model_dump(mode="json", exclude_defaults=True)


def _shortened(history: Sequence[TaskError]) -> tuple[TaskError, ...]:
    """Return the errors of earlier attempts without tracebacks, and one for all those in the middle."""
    half = ERRORS_TOLD // 2
    first, middle, last = history[:half], history[half:-half], history[max(half, len(history) - half) :]
    told = [error.model_copy(update={"traceback": None}) for error in (*first, *middle[-1:], *last)]
    if middle:
        told[half] = told[half].model_copy(update={"detail": "…", "times": tries(middle)})
    return tuple(told)


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
        text = raw[: 4 * MAX_SPEC_BYTES].decode(errors="replace")
    else:
        text = _beginning(raw)
    return excerpt(text, RAW_SPEC_LIMIT)


def _beginning(raw: object) -> str:
    """Return *raw* as JSON, of which what is far too long or too deep is left out."""
    pieces: list[str] = []
    length = 0
    try:
        for piece in json.JSONEncoder(default=_plain, skipkeys=True).iterencode(raw):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_SPEC_BYTES:
                break
    except (ValueError, RecursionError) as error:
        pieces.append(f"… ({type(error).__name__})")
    return "".join(pieces)
