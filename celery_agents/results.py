"""What became of messages: ``AgentResult`` for one, ``AgentGroupResult`` for those that a sweep sent.

Both read Celery's result backend and put what they find into the words of ``status`` and ``messages``. Celery's own
``AsyncResult`` stays usable beside them.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from celery import Celery
from celery.app import app_or_default
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.result import EagerResult

from celery_agents.backends import backend_of, is_old_news, kind_of, pause, read
from celery_agents.errors import ResultNotReadyError, SetupError
from celery_agents.messages import Outcome, Progress, TaskCompletionResult, TaskError, TaskOutcome
from celery_agents.snapshots import ErrorKey, Snapshot, snapshot_of
from celery_agents.status import Status

if TYPE_CHECKING:
    from celery_agents.ledger import Record

#: Seconds between two looks at messages that have not ended, at first and at most, where the backend does not tell.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
#: Seconds after which one message is looked at although the backend tells: a notification can be lost.
SAFETY_PAUSE = 5.0
#: A look at a big group may take a while: at least so many times that long is then waited, so that waiting stays cheap.
PAUSE_PER_LOOK = 4
#: Ids in one revoke command: it is broadcast to every worker.
REVOKE_CHUNK = 1_000


class AgentResult:
    """What became of one message of agent tasks.

    Each property asks the result backend once, until the message has ended; then the answer is kept here. To look at
    several properties of one moment, take a ``snapshot()``.

    Attributes:
        latest: What was last seen, without asking; None where nobody has asked yet.

    Args:
        id: The message's Celery id, or its ``AsyncResult``.
        app: The app whose result backend is asked; by default the current one.
        total: How many specs the message carries. Where it is given the message is known to have been sent, and no news
            of it means QUEUED; otherwise it means UNKNOWN.
    """

    def __init__(self, id: object, app: Celery | None = None, *, total: int | None = None) -> None:  # noqa: A002
        self.id = str(id)
        self.app = app_or_default(app)
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
            app: The app that declares the agents; by default the current one. Its ledgers are asked. Encord is asked
                only where they have no record of the agent task.

        Raises:
            ResultNotReadyError: Nothing is known: it never ran, or is no longer kept, or waits and was given by its
                data hash.
            SetupError: The app has no ledger.
            LedgerError: Its Redis cannot be used.
            ValueError: *task_uuid* is not a UUID.
        """
        uuid, app = UUID(str(task_uuid)), app_or_default(app)
        tasks = [task for task in app.tasks.values() if _ledger_of(task) is not None]
        if not tasks:
            raise SetupError(
                "What became of an agent task is kept by a ledger, and the app has none: set agents_ledger_url."
            )
        message_id = _message_of(uuid, tasks)
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
        if self.latest is not None and self.latest.is_final:
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
    def progress(self) -> Progress | None:
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
        deadline, pauses = _Deadline(timeout), _pauses(LONGEST_PAUSE)
        while not self.snapshot().is_final and not deadline.is_over():
            pause(self.app, self.id, deadline.at_most(SAFETY_PAUSE), deadline.at_most(next(pauses)))
        return self.snapshot().status

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
        """Tell every worker to leave this message; with *terminate*, to kill the process that runs it.

        The status becomes CANCELLED when a worker meets the message.
        """
        self.app.control.revoke(self.id, terminate=terminate, signal=signal)

    def forget(self) -> None:
        """Remove the result from the backend."""
        self.latest = None
        backend_of(self.app).forget(self.id)

    def as_dict(self) -> dict[str, Any]:
        """What is known now, as a JSON object."""
        return self.snapshot().as_dict()


def _ledger_of(task: Any) -> Any:
    # What is a StageTask is the business of `task`, which this module does not know.
    return getattr(task.runner, "ledger", None) if hasattr(task, "stage_agent") else None


def _message_of(uuid: UUID, tasks: Sequence[Any]) -> str | None:
    """Return the message that has an agent task, or else the one that decided about it last."""
    records: list[tuple[Record, Any]] = []
    for ledger in {task.runner.project_hash: _ledger_of(task) for task in tasks}.values():
        for found in (
            ledger.outcomes_of([uuid]),
            ledger.outcomes_of_data([uuid]),
            ledger.failures_of([uuid]),
        ):
            records += [(record, ledger) for record in found.records]
    if records:
        newest, ledger = max(records, key=lambda pair: pair[0].at)
        # Sent again since, by a replay or a sweep?
        claim = ledger.who_holds(newest.stage_uuid, [newest.task_uuid]).get(newest.task_uuid)
        return str(claim.message_id if claim else newest.message_id)
    held = (_ledger_of(task).who_holds(task.agent_stage.uuid, [uuid]).get(uuid) for task in tasks)
    return next((str(claim.message_id) for claim in held if claim), None)


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """How a group of messages stood at one moment."""

    messages: Counter[Status] = field(default_factory=Counter)  #: how many messages have which status
    outcomes: Counter[Outcome] = field(default_factory=Counter)  #: how many agent tasks have which outcome
    progress: Progress = field(default_factory=Progress)  #: the sum over the messages

    @property
    def status(self) -> Status:
        """The status of the group; one without messages SUCCEEDED, for there was nothing to do."""
        return _status_of_all(frozenset(+self.messages))

    @property
    def is_final(self) -> bool:
        """Whether every message has ended."""
        return all(status.is_final for status in +self.messages)

    def as_dict(self) -> dict[str, Any]:
        """This summary as a JSON object."""
        return {
            "status": self.status.value,
            "progress": self.progress.model_dump(mode="json"),
            "messages": {status.value: number for status, number in sorted((+self.messages).items())},
            "counts": {outcome.value: number for outcome, number in sorted((+self.outcomes).items())},
        }


def _status_of_all(statuses: frozenset[Status]) -> Status:
    open_ones = frozenset(status for status in statuses if not status.is_final)
    if len(statuses) == 1:
        return next(iter(statuses))
    if Status.UNKNOWN in open_ones and len(open_ones) == 1:
        return Status.UNKNOWN
    if open_ones:
        return Status.RETRYING if open_ones == {Status.RETRYING} else Status.RUNNING
    if statuses & {Status.SUCCEEDED, Status.PARTIAL}:
        return Status.PARTIAL
    return Status.FAILED if statuses else Status.SUCCEEDED


class AgentGroupResult:
    """What became of the messages that a sweep sent.

    Many results are read in one round trip, see ``backends``, and only those of messages that had not ended when they
    were last looked at. What is kept here of a message that has ended are numbers: ``outcomes``, ``errors`` and
    ``get()`` read it again from the backend, chunk by chunk, so that a group of any size takes little memory. Where a
    backend gives each result only once (RPC), or *keep* asks for it, results are kept whole.

    Args:
        results: One for each message.
        app: The app whose result backend is asked; by default the current one.
        keep: Keep every outcome of what has ended in memory; nothing is then read twice.
    """

    def __init__(
        self, results: Iterable[AgentResult] = (), app: Celery | None = None, *, keep: bool = False
    ) -> None:
        self.app = app_or_default(app)
        self._keep = keep
        self._totals: dict[str, int | None] = {}
        self._open: dict[str, Snapshot | None] = {}  # those that have not ended, as they were last seen
        self._kept: dict[str, Snapshot] = {}
        self._ended = GroupSummary()
        for result in results:
            self._totals[result.id] = result.total
            self._open[result.id] = None
            if result.latest is not None and result.latest.is_final:
                self._note(result.latest, keep=True)

    def __len__(self) -> int:
        return len(self._totals)

    def __iter__(self) -> Iterator[AgentResult]:
        for message_id, total in self._totals.items():
            result = AgentResult(message_id, self.app, total=total)
            result.latest = self._kept.get(message_id) or self._open.get(message_id)
            yield result

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} messages, {len(self._open)} not known to have ended>"

    @property
    def ids(self) -> list[str]:
        """The messages' Celery ids, in the order in which they were sent."""
        return list(self._totals)

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield a snapshot of every message, in order; each is read when its turn comes, many in one round trip.

        Raises:
            SetupError: There is no result backend, or it cannot be reached.
        """
        return self._read(list(self._totals))

    def _read(self, ids: list[str]) -> Iterator[Snapshot]:
        backend = backend_of(self.app)
        keep = self._keep or kind_of(backend).reads_once
        kept = dict(self._kept)
        stored = read(backend, (each for each in ids if each not in kept))
        for message_id in ids:
            yield kept.get(message_id) or self._note(self._fresh(message_id, next(stored)), keep=keep)

    def _fresh(self, message_id: str, stored: Any) -> Snapshot:
        before = self._open.get(message_id)
        if before is not None and is_old_news(backend_of(self.app), stored):
            return before
        seen = before.progress if before else None
        return snapshot_of(message_id, stored, total=self._totals[message_id], seen=seen)

    def _note(self, snapshot: Snapshot, *, keep: bool) -> Snapshot:
        if snapshot.id not in self._open:
            return snapshot
        if not snapshot.is_final:
            self._open[snapshot.id] = snapshot
            return snapshot
        del self._open[snapshot.id]
        self._ended = _sum(self._ended, snapshot)
        if keep:
            self._kept[snapshot.id] = snapshot
        return snapshot

    def summary(self) -> GroupSummary:
        """Return how the group stands, asking only for messages that have not ended.

        Raises:
            SetupError: There is no result backend, or it cannot be reached.
        """
        for _ in self._read(list(self._open)):
            pass
        summary = self._ended
        for snapshot in self._open.values():
            assert snapshot is not None  # noted by the loop above
            summary = _sum(summary, snapshot)
        return summary

    @property
    def status(self) -> Status:
        """The status of the group: RUNNING while any message is, PARTIAL where some failed and some did not."""
        return self.summary().status

    @property
    def progress(self) -> Progress:
        """The sum of the messages' progress."""
        return self.summary().progress

    @property
    def counts(self) -> Counter[Outcome]:
        """How many agent tasks have which outcome, of those decided in messages that ended or are RETRYING."""
        return self.summary().outcomes

    @property
    def outcomes(self) -> Iterator[TaskOutcome]:
        """The outcomes that are decided, message by message; nothing for messages that have none.

        Compare with ``ready()`` before taking them for all, and with ``errors`` for messages that died without.
        """
        return (
            outcome
            for snapshot in self.snapshots()
            if snapshot.completion is not None
            for outcome in snapshot.outcomes
        )

    @property
    def errors(self) -> Iterator[tuple[ErrorKey, TaskError]]:
        """Pairs of agent task UUID and why it FAILED, see ``Snapshot.errors``; ``dict(group.errors)`` is a dict."""
        return (pair for snapshot in self.snapshots() for pair in snapshot.errors.items())

    def ready(self) -> bool:
        """Return whether every message has ended."""
        return self.summary().is_final

    def wait(
        self,
        timeout: float | None = None,
        *,
        on_progress: Callable[[GroupSummary], object] | None = None,
        interval: float = LONGEST_PAUSE,
    ) -> Status:
        """Wait until every message has ended, or for *timeout* seconds; return the group's status then.

        Args:
            timeout: Seconds to wait; None for as long as it takes.
            on_progress: Called with a summary after each look, also the last.
            interval: Seconds between two looks at most; big groups are looked at less often, small ones more at first.
        """
        deadline = _Deadline(timeout)
        pauses = _pauses(interval)
        while True:
            started = time.monotonic()
            summary = self.summary()
            if on_progress is not None:
                on_progress(summary)
            if summary.is_final or deadline.is_over():
                return summary.status
            at_least = PAUSE_PER_LOOK * (time.monotonic() - started)
            pause(
                self.app,
                next(reversed(self._open)),  # sent last, it most likely ends last: that is noticed at once
                told=deadline.at_most(max(interval, at_least)),
                untold=deadline.at_most(max(next(pauses), at_least)),
            )

    def get(self, timeout: float | None = None) -> list[TaskCompletionResult]:
        """Wait until every message has ended and return all completion results, in order, in memory.

        Raises:
            celery.exceptions.TimeoutError: Not all have ended in time.
            AgentTaskError: A message failed: the first one's; or what Celery stored for it, see ``AgentResult.get``.
        """
        status = self.wait(timeout)
        if self._open:
            raise ResultTimeoutError(
                f"{len(self._open)} of {len(self)} messages have not ended after {timeout} s ({status})."
            )
        return [snapshot.result for snapshot in self.snapshots()]

    def revoke(self, *, terminate: bool = False, signal: str = "SIGTERM") -> None:
        """Tell every worker to leave those messages that are not known to have ended, see ``AgentResult.revoke``."""
        ids = list(self._open)
        for start in range(0, len(ids), REVOKE_CHUNK):
            self.app.control.revoke(ids[start : start + REVOKE_CHUNK], terminate=terminate, signal=signal)

    def as_dict(self) -> dict[str, Any]:
        """How the group stands, and its ids, as a JSON object."""
        return {**self.summary().as_dict(), "ids": self.ids}

    def to_json(self) -> str:
        """Return what ``from_json`` needs to ask for these messages in another process."""
        return json.dumps({"messages": list(self._totals.items())}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, app: Celery | None = None, *, keep: bool = False) -> Self:
        """Rebuild a group from the text that ``to_json`` gave."""
        messages = json.loads(text)["messages"]
        return cls(
            (AgentResult(message_id, app, total=total) for message_id, total in messages), app, keep=keep
        )


def _sum(summary: GroupSummary, snapshot: Snapshot) -> GroupSummary:
    so_far, more = summary.progress, snapshot.progress or Progress()
    return GroupSummary(
        messages=summary.messages + Counter([snapshot.status]),
        outcomes=summary.outcomes + snapshot.counts,
        progress=Progress(
            done=so_far.done + more.done, failed=so_far.failed + more.failed, total=so_far.total + more.total
        ),
    )


class _Deadline:
    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def is_over(self) -> bool:
        return self._at is not None and time.monotonic() >= self._at

    def at_most(self, seconds: float) -> float:
        return seconds if self._at is None else max(0.0, min(seconds, self._at - time.monotonic()))


def _pauses(longest: float) -> Iterator[float]:
    seconds = FIRST_PAUSE
    while True:
        yield min(seconds, longest)
        seconds *= 1.5
