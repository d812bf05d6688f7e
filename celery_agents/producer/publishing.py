"""Send messages, in one round trip where the broker can, and say in one sentence what a broker in trouble means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from amqp.exceptions import MessageNacked
from celery import Celery
from kombu import exceptions as kombu_exceptions
from kombu.exceptions import OperationalError

from celery_agents.claims import Outgoing
from celery_agents.errors import SetupError
from celery_agents.producer.confirming import confirmed_together
from celery_agents.producer.reports import SentMessage
from celery_agents.producer.subscribing import unsubscribed
from celery_agents.redaction import redact
from celery_agents.results import AgentResult

if TYPE_CHECKING:
    from encord.workflow.stages.agent import AgentStage

#: How often, and after how many seconds each, connecting to the broker is tried again before giving up.
CONNECT_RETRIES, CONNECT_INTERVAL = 3, 0.2
#: Seconds that connecting may take in all, where the transport obeys a time limit.
CONNECT_SECONDS = 10.0

# kombu 5.7: a pipeline broke while it was executed, so some of its messages may have arrived.
_UNCERTAIN = tuple(filter(None, [getattr(kombu_exceptions, "BatchPublishError", None)]))

#: A message that the broker has, and the result to ask for what becomes of it.
Sent = tuple[SentMessage, AgentResult]


class SweepableTask(Protocol):
    """What is needed of a ``StageTask``: who lists, what is listed, how many go into a message, and how it is sent."""

    app: Any
    name: str  #: the Celery task's
    queue_name: str  #: where its messages go
    runner: Any  #: its ``gateway`` lists, its ``ledger`` claims
    stage_agent: Any  #: its ``options.batch_size`` is the default

    @property
    def agent_stage(self) -> AgentStage:
        """The stage to list."""
        ...

    def apply_async(self, args: Sequence[Any], **options: Any) -> Any:
        """Send one message."""
        ...


def publish(
    stage_task: SweepableTask,
    stage: str,
    messages: Sequence[Outgoing],
    options: Mapping[str, Any],
) -> list[Sent]:
    """Send messages; return when the broker has all of them.

    Raises:
        SetupError: The broker cannot be used; some may have arrived.
    """
    app = stage_task.app
    with (
        unsubscribed(app),
        connected(app, len(messages)) as producer,
        _pipelined(producer),
        confirmed_together(producer.channel),
    ):
        return [_publish_one(stage_task, stage, message, producer, options) for message in messages]


@contextmanager
def connected(app: Celery, number: int = 1, seconds: float = CONNECT_SECONDS) -> Iterator[Any]:
    """Give a kombu producer that is connected, to send so many messages with; that may take *seconds* in all.

    Raises:
        SetupError: The broker cannot be used; some may have arrived.
    """
    with app.producer_or_acquire() as producer, _explained(producer.connection, number):
        producer.connection.ensure_connection(
            max_retries=CONNECT_RETRIES,
            interval_start=0,
            interval_step=CONNECT_INTERVAL,
            timeout=seconds,
        )
        yield producer


def _publish_one(
    stage_task: SweepableTask, stage: str, outgoing: Outgoing, producer: Any, options: Mapping[str, Any]
) -> Sent:
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
    except (
        OperationalError,
        MessageNacked,
        OSError,
        *connection.connection_errors,
        *connection.channel_errors,
    ) as error:
        raise SetupError(f"The broker {broker} cannot be used: {redact(_cause(error))}") from error


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    return str(cause) or type(cause).__name__
