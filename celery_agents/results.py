"""What became of one message: ``AgentResult``. For those that a sweep sent see ``groups``.

It reads Celery's result backend and puts what it finds into the words of ``status`` and ``messages``. Celery's own
``AsyncResult`` stays usable beside it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from celery import Celery
from celery.app import app_or_default
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.result import EagerResult

from celery_agents import waiting
from celery_agents.backends import await_end, backend_of, is_old_news, read, tells
from celery_agents.errors import LedgerError, ResultNotReadyError, SetupError
from celery_agents.messages import ProgressReport, TaskCompletionResult, TaskError, TaskOutcome
from celery_agents.redaction import redact
from celery_agents.snapshots import ErrorKey, Snapshot, snapshot_of
from celery_agents.status import Status
from celery_agents.waiting import LONGEST_PAUSE, Deadline

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger, Record

logger = logging.getLogger(__name__)

#: Seconds for which it is remembered that a message was cancelled: as long as one may wait in its queue.
REMEMBERED = 24 * 3600.0
#: Seconds after which one message is looked at although the backend tells: a notification can be lost.
SAFETY_PAUSE = 5.0


class AgentResult:
    """What became of one message of agent tasks.

    Each property asks the result backend once, until the message has ended; then the answer is kept here. To look at
    several properties of one moment, take a ``snapshot()``.

    Attributes:
        latest: What was last seen, without asking; None where nobody has asked yet.

    Args:
        id: The message's Celery id, or its ``AsyncResult``.
        app: The app whose result backend is asked; by default that of the ``AsyncResult``, or else the current one.
        total: How many specs the message carries. Where it is given the message is known to have been sent, and no news
            of it means QUEUED; otherwise it means UNKNOWN.
    """

    def __init__(self, id: object, app: Celery | None = None, *, total: int | None = None) -> None:  # noqa: A002
        self.id = str(id)
        # With several apps in one process an AsyncResult knows which of them it is of.
        self.app = app_or_default(app or getattr(id, "app", None))
        self.total = total
        self.latest: Snapshot | None = None
        if isinstance(id, EagerResult):
            # task_always_eager: it ran when it was sent, and no backend knows of it.
            self._note({"status": id.state, "result": id.result, "traceback": id.traceback})

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.id!r}, status={self.latest.status if self.latest else 'not asked'})"
        )

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, AgentResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    @classmethod
    def for_task(cls, task_uuid: str | UUID, app: Celery | None = None) -> Self:
        """Return the result of the message that has an agent task now, or else of the one that decided about it last.

        Args:
            task_uuid: The agent task's UUID, or its data unit's (the data hash).
            app: The app that declares the agents; by default the current one. Its ledgers are asked, and Encord, once,
                about the stages that are declared by their titles. Where it cannot be, it is told all the same by whom
                an agent task was decided, with a warning.

        Raises:
            ResultNotReadyError: Nothing is known: it never ran, or is no longer kept, or waits and was given by its
                data hash.
            SetupError: The app has no ledger.
            LedgerError: Its Redis cannot be used.
            ValueError: *task_uuid* is not a UUID.
            Exception: The ledgers know nothing of it, and Encord could not be asked: what it answered.
        """
        uuid, app = UUID(str(task_uuid)), app_or_default(app)
        tasks = _ledgered_tasks(app)
        if not tasks:
            raise SetupError(
                "What became of an agent task is kept by a ledger, and the app has none: set agents_ledger_url."
            )
        message_id = message_of(uuid, tasks)
        if message_id is None:
            raise ResultNotReadyError(
                f"Nothing is known of agent task or data unit {uuid}: it never ran, or that is no longer kept."
            )
        return cls(message_id, app)

    def snapshot(self) -> Snapshot:
        """Return everything that is known now, in one round trip; in none once the message has ended.

        Raises:
            SetupError: There is no result backend, or it cannot be reached.
        """
        if self.latest is not None and self.latest.is_settled:
            return self.latest
        stored = next(read(backend_of(self.app), [self.id]))
        if self.latest is not None and is_old_news(backend_of(self.app), stored):
            return self.latest
        return self._note(stored)

    def _note(self, stored: Any) -> Snapshot:
        seen = self.latest.progress if self.latest else None
        self.latest = snapshot_of(self.id, stored, total=self.total, seen=seen)
        return self.latest

    @property
    def state(self) -> str:
        """Celery's state, or ``UNREADABLE`` where what is stored cannot be decoded."""
        return self.snapshot().state

    @property
    def status(self) -> Status:
        """What became of the message, see ``status.Status``."""
        return self.snapshot().status

    @property
    def progress(self) -> ProgressReport | None:
        """How far it is, or None where nothing is known; ``total`` is 0 where the number of specs is not known."""
        return self.snapshot().progress

    @property
    def outcomes(self) -> list[TaskOutcome]:
        """The outcomes that are decided: all when it has ended, a part while it is RETRYING.

        Raises:
            ResultNotReadyError: There are none, yet or for good; ``[]`` is never returned for "not known".
        """
        return self.snapshot().outcomes

    @property
    def errors(self) -> dict[ErrorKey, TaskError]:
        """Why agent tasks FAILED, by their UUID, see ``Snapshot.errors``; empty while nothing is known."""
        return self.snapshot().errors

    @property
    def result(self) -> TaskCompletionResult:
        """The completion result; raises as ``get`` does, and ResultNotReadyError where it has not ended."""
        return self.snapshot().result

    def ready(self) -> bool:
        """Return whether the message has ended."""
        return self.snapshot().is_final

    def wait(self, timeout: float | None = None) -> Status:
        """Wait until the message has ended, or for *timeout* seconds; return its status then, whatever it is."""
        deadline, pauses = Deadline(timeout), waiting.pauses(LONGEST_PAUSE)
        while not (self._told(deadline) or self.snapshot()).is_final and not deadline.is_over():
            if not tells(self.app):
                time.sleep(deadline.at_most(next(pauses)))
        return self.latest.status if self.latest else self.status

    def _told(self, deadline: Deadline) -> Snapshot | None:
        """Wait for a while until the backend tells that the message has ended; None where it does not."""
        has_ended = self.latest is not None and self.latest.is_final
        if has_ended or not tells(self.app):
            return None
        stored = await_end(self.app, self.id, deadline.at_most(SAFETY_PAUSE))
        return None if stored is None else self._note(stored)

    def get(self, timeout: float | None = None) -> TaskCompletionResult:
        """Wait until the message has ended and return its completion result.

        Args:
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            AgentTaskError: The message failed; the error carries the completion result.
            celery.exceptions.TimeoutError: It has not ended in time.
            AgentsError: What is stored for it is not a completion result.
            Exception: What Celery stored for it: TaskRevokedError, WorkerLostError, TimeLimitExceeded and others.
        """
        status = self.wait(timeout)
        if not status.is_final:
            raise ResultTimeoutError(f"Message {self.id} is {status} after {timeout} s.")
        return self.snapshot().result

    def revoke(self, *, terminate: bool = False, signal: str = "SIGTERM") -> None:
        """Cancel this message; with *terminate*, the process that runs it is killed.

        What waits is not begun, also by workers that are started later if there is a ledger. What runs ends after the
        agent task that it is on; what is committed by then stays so and is in the ``outcomes``. The others are as they
        were, and the next sweep sends them. The status becomes CANCELLED when a worker meets the message.
        """
        cancel(self.app, [self.id], terminate=terminate, signal=signal)

    def forget(self) -> None:
        """Remove the result from the backend."""
        self.latest = None
        backend_of(self.app).forget(self.id)

    def as_dict(self) -> dict[str, Any]:
        """What is known now, as a JSON object."""
        return self.snapshot().as_dict()


def _ledgered_tasks(app: Celery) -> list[Any]:
    # What is a StageTask is the business of `task`, which this module does not know.
    agents = [task for task in app.tasks.values() if hasattr(task, "stage_agent")]
    return [task for task in agents if task.runner.ledger is not None]


def ledgers_of(app: Celery) -> list[Ledger]:
    """Return the ledgers of the agents that *app* declares, one for each project."""
    return list({task.runner.project_hash: task.runner.ledger for task in _ledgered_tasks(app)}.values())


def cancel(app: Celery, message_ids: Sequence[str], **options: Any) -> None:
    """Cancel messages: tell every worker that lives now, and the ledgers for those that come later.

    Args:
        app: Who sent them.
        message_ids: Their Celery ids.
        options: Of Celery's ``app.control.revoke``.
    """
    try:
        # First: a worker with Celery 5.6 that hears of it late would write over the outcomes of what it has ended.
        app.control.revoke(list(message_ids), **options)
    finally:
        _remember_as_cancelled(app, message_ids)


def _remember_as_cancelled(app: Celery, message_ids: Sequence[str]) -> None:
    try:
        for ledger in ledgers_of(app):
            ledger.cancel(message_ids, REMEMBERED)
    except LedgerError as error:
        logger.warning("A worker that is started later will not know that this was cancelled: %s", error)


def message_of(uuid: UUID, tasks: Sequence[Any]) -> str | None:
    """Return the message that has an agent task, or else the one that decided about it last.

    Args:
        uuid: The agent task's, or its data unit's. Of one without a record only the agent task's is known.
        tasks: The Celery tasks of the agents at whose stages it may be.

    Raises:
        Exception: Nothing is known of it, and which stages those are could not be asked: what Encord answered.
    """
    records = _records_of(uuid, tasks)
    stages, trouble = _stages_of(tasks)
    # An agent task keeps its UUID from stage to stage: decided about at one, it may have been sent again at any.
    stages |= {(ledger, record.stage_uuid) for record, ledger in records}
    uuids = {uuid, *(record.task_uuid for record, _ in records)}
    claims = [claim for ledger, stage in stages for claim in ledger.who_holds(stage, uuids).values()]
    if claims:
        # Of several, as where somebody has moved it by hand: the one that runs, or was sent last.
        return str(max(claims, key=lambda each: (not each.is_queued, each.seconds_left)).message_id)
    if records:
        _warn_of(trouble)
        return str(max(records, key=lambda pair: pair[0].at)[0].message_id)
    if trouble is not None:
        raise trouble
    return None


def _records_of(uuid: UUID, tasks: Sequence[Any]) -> list[tuple[Record, Ledger]]:
    return [
        (record, ledger)
        for ledger in {task.runner.project_hash: task.runner.ledger for task in tasks}.values()
        for found in (ledger.outcomes_of([uuid]), ledger.outcomes_of_data([uuid]), ledger.failures_of([uuid]))
        for record in found.records
    ]


def _stages_of(tasks: Sequence[Any]) -> tuple[set[tuple[Ledger, UUID]], Exception | None]:
    """Return where agents are declared, as far as that is known, and why the rest is not."""
    stages, trouble = set(), None
    for task in tasks:
        declared = task.stage_agent.stage
        try:
            stages.add(
                (task.runner.ledger, declared if isinstance(declared, UUID) else task.agent_stage.uuid)
            )
        except SetupError as error:  # a mistake in one declaration hides no other
            trouble = error
        except Exception as error:  # noqa: BLE001  (whatever Encord or the network answers)
            return stages, error  # and would answer for each of the others
    return stages, trouble


def _warn_of(trouble: Exception | None) -> None:
    if trouble is not None:
        reason = f"{type(trouble).__name__}: {redact(str(trouble))}"
        logger.warning("What is in flight may be missing, because Encord could not be asked: %s", reason)
