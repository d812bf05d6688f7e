"""Ask the live workers what they listen to, and the broker how much waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from celery import Celery
from kombu.exceptions import OperationalError

Answer = TypeVar("Answer")

#: Seconds that workers have to answer. Celery's own default; an idle worker takes milliseconds.
ANSWER_TIMEOUT = 1.0
#: The same where the answer is what was asked for: a machine under load should not look like one without workers.
PATIENT_TIMEOUT = 2.0
#: Seconds that the broker has to accept a connection before it counts as down.
CONNECT_TIMEOUT = 5.0


class NoAnswerError(OperationalError):
    """Raised when a peer neither answers nor refuses within the time that it has."""


def within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """Return ``ask()``, or raise NoAnswerError after *seconds*; its thread dies with the process.

    Some transports wait for minutes on a host that swallows packets, and their options for that differ.
    """
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise NoAnswerError(f"no answer within {seconds:g} s")
    return answers[0]


def reach_broker(app: Celery) -> None:
    """Raise kombu's OperationalError if the broker cannot be reached: Celery itself would try for ever."""

    def connect() -> None:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_TIMEOUT)

    within(CONNECT_TIMEOUT, connect)


def can_be_asked(app: Celery) -> bool:
    """Whether workers can be asked over this broker: that needs a transport that can broadcast."""
    with app.connection_for_write() as connection:
        return "fanout" in connection.transport.implements.exchange_type


@dataclass(frozen=True)
class Listeners:
    """Which workers answered, and what each listens to and knows."""

    queues: dict[str, frozenset[str]]  #: worker -> names of the queues that it consumes
    tasks: dict[str, frozenset[str]]  #: worker -> names of its registered tasks; empty if not asked

    def of_queue(self, queue: str) -> list[str]:
        """Return the workers that consume *queue*."""
        return sorted(worker for worker, queues in self.queues.items() if queue in queues)

    def without_task(self, queue: str, task: str) -> list[str]:
        """Return the workers that consume *queue* but do not know *task*: they drop its messages."""
        return [worker for worker in self.of_queue(queue) if task not in self.tasks.get(worker, ())]


def ask(
    app: Celery,
    *commands: str,
    timeout: float = ANSWER_TIMEOUT,
    arguments: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Send the workers inspect *commands* and return for each what every worker answered.

    Who is there is only known once nobody has answered for *timeout*. That is waited for once: the commands after the
    first stop listening when as many have answered as the first time.

    Args:
        app: Whose workers.
        commands: Names of Celery's inspect commands.
        timeout: Seconds that workers have to answer.
        arguments: Command -> its arguments.
    """
    answers: list[dict[str, Any]] = []
    for command in commands:
        options = dict((arguments or {}).get(command, {}))
        expected = len(answers[0]) if answers else None
        found = {} if expected == 0 else _inspect(app, command, options, timeout, limit=expected)
        if expected is not None and len(found) < expected:
            # A late answer to an earlier command was counted for one of these.
            found = _inspect(app, command, options, timeout, limit=None)
        answers.append(found)
    return answers


def _inspect(
    app: Celery, command: str, options: dict[str, Any], timeout: float, limit: int | None
) -> dict[str, Any]:
    replies = app.control.broadcast(command, reply=True, timeout=timeout, limit=limit, arguments=options)
    # A worker that does not understand answers with an error.
    return {
        worker: answer
        for reply in replies or ()
        for worker, answer in reply.items()
        if not (isinstance(answer, dict) and "error" in answer)
    }


def listeners(app: Celery, *, with_tasks: bool = False, timeout: float = ANSWER_TIMEOUT) -> Listeners:
    """Ask every worker which queues it consumes and, with *with_tasks*, which tasks it has registered."""
    commands = ("active_queues", "registered") if with_tasks else ("active_queues",)
    queues, *rest = ask(app, *commands, timeout=timeout)
    return Listeners(queues=queues_by_worker(queues), tasks=_tasks_by_worker(rest[0]) if rest else {})


def queues_by_worker(answers: dict[str, Any]) -> dict[str, frozenset[str]]:
    """Read the answers to ``active_queues``."""
    return {worker: frozenset(queue["name"] for queue in found or ()) for worker, found in answers.items()}


def _tasks_by_worker(answers: dict[str, Any]) -> dict[str, frozenset[str]]:
    # A registered task comes as "name" or "name [rate_limit=…]".
    return {worker: frozenset(name.split(" [")[0] for name in found) for worker, found in answers.items()}


def unheard(app: Celery, queues: Iterable[str]) -> list[str]:
    """Return those of *queues* that no worker answered for, or none where workers cannot be asked."""
    wanted = sorted(set(queues))
    if not can_be_asked(app):
        return []
    found = listeners(app)
    return [queue for queue in wanted if not found.of_queue(queue)]


def nobody_listens(queues: Sequence[str], worker_command: str) -> str:
    """Say that no worker answered for *queues*, and how to start one."""
    which = f"queue{'s' if len(queues) > 1 else ''} {', '.join(map(repr, queues))}"
    return f"no worker answers for {which}; start one: {worker_command} -Q {','.join(queues)}"


def waiting_messages(app: Celery, queue: str) -> int:
    """Return how many messages wait in *queue*, as far as the broker counts them."""
    with app.connection_for_read() as connection:
        try:
            declared: Any = connection.default_channel.queue_declare(queue=queue, passive=True)
        except connection.channel_errors:
            return 0  # no such queue: on Redis an empty one does not exist
        return int(declared.message_count)
