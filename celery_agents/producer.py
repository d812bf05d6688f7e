"""The producer: list the agent tasks that wait at a stage, batch them, send the batches to the stage's Celery task.

Pages are streamed: what is held is one flush of specs, and the ids of what was sent. Encord is the source of truth: an
agent task that was listed and not sent, or sent and lost, is still at its stage, and the next sweep finds it.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from kombu import exceptions as kombu_exceptions
from kombu.exceptions import OperationalError

from celery_agents import backends, claims
from celery_agents.claims import Outgoing, Spec
from celery_agents.errors import SetupError
from celery_agents.groups import AgentGroupResult
from celery_agents.redaction import redact
from celery_agents.results import AgentResult

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage, AgentTask

#: Specs that are published together: about half a megabyte, and a page of Encord's.
SPECS_PER_FLUSH = 1_000
#: Seconds after which what is batched is published although it is less, so that workers do not wait for slow pages.
SECONDS_PER_FLUSH = 0.25
#: How often, and after how many seconds each, connecting to the broker is tried again before giving up.
CONNECT_RETRIES, CONNECT_INTERVAL = 3, 0.2
#: Seconds that connecting may take in all, where the transport obeys a time limit.
CONNECT_SECONDS = 10.0

#: What ``AgentTask.status`` can be: the values of the SDK's ``AgentTaskStatus``, which takes others for UNKNOWN.
TASK_STATUSES = ("NEW", "ASSIGNED", "RELEASED", "SKIPPED", "REOPENED", "COMPLETED")

# kombu 5.7: a pipeline broke while it was executed, so some of its messages may have arrived.
_UNCERTAIN = tuple(filter(None, [getattr(kombu_exceptions, "BatchPublishError", None)]))


class SweepableTask(Protocol):
    """What is needed of a ``StageTask``: who lists, what is listed, how many go into a message, and how it is sent."""

    app: Any
    name: str  #: the Celery task's
    runner: Any  #: its ``gateway`` lists, its ``ledger`` claims
    stage_agent: Any  #: its ``options.batch_size`` is the default

    @property
    def agent_stage(self) -> AgentStage:
        """The stage to list."""
        ...

    def apply_async(self, args: Sequence[Any], **options: Any) -> Any:
        """Send one message."""
        ...


@dataclass(frozen=True, slots=True)
class _Claiming:
    """What a sweep does about agent tasks that other messages have."""

    force: bool
    on_skipped: Callable[[Mapping[UUID, str]], object] | None


@dataclass(frozen=True, slots=True)
class SentMessage:
    """One message that the broker has accepted."""

    id: str  #: Celery id
    task: str  #: name of the Celery task
    stage: str  #: the stage's title
    size: int  #: how many agent tasks it carries


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilters:
    """Which agent tasks of a stage to send: the filters of the SDK's ``AgentStage.get_tasks``, and-ed.

    Each takes one value or several, but the title, which takes a piece of it. None is "any"; several that are none
    (``[]``) are "nothing", and not the whole stage.

    Raises:
        SetupError: A status or hash that cannot be one, or more of them than fit into a request.
    """

    status: str | Iterable[str] | None = None
    data_title: str | None = None
    data_hash: str | UUID | Iterable[str | UUID] | None = None
    dataset_hash: str | UUID | Iterable[str | UUID] | None = None
    assignee: str | Iterable[str] | None = None

    def __post_init__(self) -> None:
        for name, check in (
            ("status", _status),
            ("data_hash", _hash),
            ("dataset_hash", _hash),
            ("assignee", str),
        ):
            # Frozen for others; here the one value becomes several, checked, each once.
            object.__setattr__(self, name, _several(name, getattr(self, name), check))

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yield the arguments of each ``get_tasks`` call that together list what is wanted, each agent task once.

        Data hashes travel in the URL, which front ends cut off, so that many of them become several requests.
        """
        # The SDK takes 1.3 s to import, and nothing else here needs it.
        from celery_agents.gateway.project import HASHES_PER_REQUEST

        given = {each.name: getattr(self, each.name) for each in fields(self)}
        chosen = {name: value for name, value in given.items() if value is not None}
        if any(value == [] for value in chosen.values()):
            return
        room = HASHES_PER_REQUEST - len(chosen.get("dataset_hash", ())) - len(chosen.get("assignee", ()))
        if room < HASHES_PER_REQUEST // 2:
            raise SetupError(
                f"Filter for at most {HASHES_PER_REQUEST // 2} datasets and assignees: they travel in a URL."
            )
        hashes = chosen.pop("data_hash", None)
        if hashes is None:
            yield chosen
            return
        for start in range(0, len(hashes), room):
            yield {**chosen, "data_hash": hashes[start : start + room]}


def _several(name: str, value: Any, check: Callable[[Any], Any]) -> list[Any] | None:
    if value is None:
        return None
    values = [value] if isinstance(value, str | UUID) else value
    try:
        return list(dict.fromkeys(check(each) for each in values))
    except ValueError as error:
        raise SetupError(f"The filter {name} cannot be {value!r}: {error}.") from None


def _status(value: str) -> str:
    text = str(getattr(value, "value", value)).upper()
    if text not in TASK_STATUSES:
        raise ValueError(f"{text!r} is none of {', '.join(TASK_STATUSES)}")
    return text


def _hash(value: str | UUID) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise ValueError(f"{str(value)!r} is not a UUID") from None


def encode_spec(task: AgentTask, project_hash: UUID, stage_uuid: UUID) -> str:
    """Return *task* as the spec that travels in a message: its own JSON, and for whom it is."""
    spec = task.model_dump(mode="json")
    spec["project_hash"] = str(project_hash)
    spec["stage_uuid"] = str(stage_uuid)
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))


def sweep(
    stage_tasks: Iterable[SweepableTask],
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    filters: TaskFilters | None = None,
    on_sent: Callable[[SentMessage], object] | None = None,
    on_skipped: Callable[[Mapping[UUID, str]], object] | None = None,
    force: bool = False,
    **options: Any,
) -> AgentGroupResult:
    """Send every agent task that waits at these tasks' stages, and return the result to ask for what becomes of them.

    Args:
        stage_tasks: The Celery tasks of the stages, swept in this order.
        batch_size: Agent tasks in one message; by default the option of each stage.
        limit: How many agent tasks to send at most, over all stages.
        filters: Which agent tasks; by default all.
        on_sent: Called for each message, when the broker has it.
        on_skipped: Called with what was not sent because another message has it: agent task -> that message's id. Needs
            a ledger, as *force* does.
        force: Send also what other messages have.
        options: Of Celery's ``apply_async``, for each message: ``queue``, ``priority``, ``countdown``, …

    Raises:
        SetupError: The stage is not there, or broker or result backend cannot be reached; what was sent stays sent.
        EncordException: Encord cannot be reached, or refuses.
    """
    results: list[AgentResult] = []
    app, left = None, limit
    claiming = _Claiming(force, on_skipped)
    for stage_task in stage_tasks:
        if app is None:
            app = stage_task.app
            backends.check(app)
        for sent, result in _send(stage_task, batch_size, left, filters or TaskFilters(), claiming, options):
            results.append(result)
            left = None if left is None else left - sent.size
            if on_sent is not None:
                on_sent(sent)
    return AgentGroupResult(results, app)


def _send(
    stage_task: SweepableTask,
    batch_size: int | None,
    limit: int | None,
    filters: TaskFilters,
    claiming: _Claiming,
    options: dict[str, Any],
) -> Iterator[tuple[SentMessage, AgentResult]]:
    size = stage_task.stage_agent.options.batch_size if batch_size is None else batch_size
    if size < 1 or (limit is not None and limit < 0):
        raise SetupError(
            f"A batch has at least one agent task, and a limit is not negative: {size}, {limit}."
        )
    if limit == 0:
        return
    stage = stage_task.agent_stage
    specs = itertools.islice(_specs(stage_task, stage, filters), limit)
    for batches in _flushes(_batches(specs, size)):
        yield from _claim_and_publish(stage_task, stage, batches, claiming, options)


def _specs(stage_task: SweepableTask, stage: AgentStage, filters: TaskFilters) -> Iterator[Spec]:
    gateway = stage_task.runner.gateway
    for request in filters.requests():
        for task in gateway.list_tasks(stage, **request):
            yield task.uuid, encode_spec(task, gateway.project_hash, stage.uuid)


def _batches(specs: Iterator[Spec], size: int) -> Iterator[list[Spec]]:
    while batch := list(itertools.islice(specs, size)):
        yield batch


def _flushes(batches: Iterator[list[Spec]]) -> Iterator[list[list[Spec]]]:
    """Group batches into what is published together: the first at once, then by number and by time."""
    flush: list[list[Spec]] = []
    specs, due = 0, time.monotonic()
    for batch in batches:
        flush.append(batch)
        specs += len(batch)
        if specs >= SPECS_PER_FLUSH or time.monotonic() >= due:
            yield flush
            flush, specs, due = [], 0, time.monotonic() + SECONDS_PER_FLUSH
    if flush:
        yield flush


def _claim_and_publish(
    stage_task: SweepableTask,
    stage: AgentStage,
    batches: list[list[Spec]],
    claiming: _Claiming,
    options: dict[str, Any],
) -> list[tuple[SentMessage, AgentResult]]:
    ledger = stage_task.runner.ledger
    messages = claims.claim(ledger, stage.uuid, batches, force=claiming.force, on_skipped=claiming.on_skipped)
    if not messages:
        return []
    try:
        return _publish(stage_task, stage.title, messages, options)
    except BaseException:
        # Some may have arrived all the same: a worker takes over what it finds unclaimed.
        claims.release(ledger, stage.uuid, messages)
        raise


def _publish(
    stage_task: SweepableTask, stage: str, messages: list[Outgoing], options: dict[str, Any]
) -> list[tuple[SentMessage, AgentResult]]:
    """Send one message per batch; return when the broker has all of them."""
    with stage_task.app.producer_or_acquire() as producer, _explained(producer.connection, len(messages)):
        producer.connection.ensure_connection(
            max_retries=CONNECT_RETRIES,
            interval_start=0,
            interval_step=CONNECT_INTERVAL,
            timeout=CONNECT_SECONDS,
        )
        with _pipelined(producer):
            return [_publish_one(stage_task, stage, message, producer, options) for message in messages]


def _publish_one(
    stage_task: SweepableTask, stage: str, outgoing: Outgoing, producer: Any, options: dict[str, Any]
) -> tuple[SentMessage, AgentResult]:
    result = stage_task.apply_async(
        args=[[text for _, text in outgoing.specs]],
        task_id=outgoing.message_id,
        producer=producer,
        **options,
    )
    message = SentMessage(id=result.id, task=stage_task.name, stage=stage, size=len(outgoing.specs))
    return message, AgentResult(result, stage_task.app, total=len(outgoing.specs))


def _pipelined(producer: Any) -> AbstractContextManager[Any]:
    # kombu 5.7's Producer.batch publishes at the end of the block, in one round trip, where the transport can.
    if getattr(producer, "supports_batch_publish", False):
        pipeline: AbstractContextManager[Any] = producer.batch()
        return pipeline
    return nullcontext()


@contextmanager
def _explained(connection: Any, number: int) -> Iterator[None]:
    """Turn what a broker in trouble raises into one sentence without its password."""
    # as_uri() leaves the password out; redact() what the transport's own words may repeat.
    broker = redact(connection.as_uri())
    try:
        yield
    except _UNCERTAIN as error:
        raise SetupError(
            f"The broker {broker} failed while {number} messages were sent, some of which may have arrived "
            f"({redact(_cause(error))}). Sweep again: what is still at its stage is found again."
        ) from error
    except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
        raise SetupError(f"The broker {broker} cannot be used: {redact(_cause(error))}") from error


def _cause(error: BaseException) -> str:
    return str(error.__cause__ or error) or type(error).__name__
