"""Look at queues and workers again and again: what waits, what runs, what has ended since the first look.

What waits is asked of the broker, what runs of the workers; what has ended is heard from the events that workers send
(``worker_send_task_events`` or ``worker -E``), and its outcomes are read from the result backend. Each source may be
missing: its numbers are then None.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from celery_agents.cli.workers import ask, can_be_asked, queues_by_worker, waiting_messages
from celery_agents.errors import SetupError
from celery_agents.groups import AgentGroupResult
from celery_agents.messages import Outcome
from celery_agents.results import AgentResult
from celery_agents.task import StageTask

#: Looks over which the rate is taken: one alone jumps between nothing and a whole batch.
RATE_LOOKS = 10
#: Celery's events after which nothing more happens to a message; a retried one comes back.
_ENDS = ("task-succeeded", "task-failed", "task-revoked", "task-rejected")
#: Seconds before listening to events is tried again after the broker went away.
RECONNECT_INTERVAL = 1.0


@dataclass(slots=True)
class StageView:
    """How the work on one stage stands."""

    stage: str
    task: str
    running: int | None = None  #: messages that workers are at
    ended: int | None = None  #: messages, since the first look
    outcomes: Counter[Outcome] | None = None  #: of agent tasks, in the messages that ended
    per_minute: float | None = None  #: agent tasks with an outcome
    at_encord: int | None = None  #: agent tasks that wait at the stage, where they were counted

    def as_dict(self) -> dict[str, Any]:
        """This view as a JSON object."""
        counts = None if self.outcomes is None else {str(each): self.outcomes[each] for each in Outcome}
        return {
            "stage": self.stage,
            "task": self.task,
            "running": self.running,
            "ended": self.ended,
            "counts": counts,
            "per_minute": self.per_minute,
            "at_encord": self.at_encord,
        }


@dataclass(slots=True)
class QueueView:
    """One queue, its workers, and the stages that share it."""

    queue: str
    waiting: int | None  #: messages
    workers: list[str] | None  #: None where workers cannot be asked
    stages: list[StageView] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """This view as a JSON object."""
        return {
            "queue": self.queue,
            "waiting": self.waiting,
            "workers": self.workers,
            "stages": [stage.as_dict() for stage in self.stages],
        }


class TaskEvents:
    """Hears from workers, in a thread of its own, which messages end, and of which task each message is."""

    def __init__(self, app: Celery, names: Collection[str]) -> None:
        self._app = app
        self._names = frozenset(names)
        self._guard = threading.Lock()
        self._open: dict[str, str] = {}
        self._ended: list[tuple[str, str]] = []
        self.has_heard = False  #: whether any worker sends events about tasks
        threading.Thread(target=self._listen, daemon=True).start()

    def learn(self, message_id: str, name: str) -> None:
        """Note of which task a message is: only the event of its arrival tells, and that may be past."""
        if name in self._names:
            with self._guard:
                self._open[message_id] = name

    def take(self) -> list[tuple[str, str]]:
        """Return id and task name of the agent messages that ended since the last time."""
        with self._guard:
            taken, self._ended = self._ended, []
        return taken

    def _listen(self) -> None:
        handlers = {"task-received": self._received, **dict.fromkeys(_ENDS, self._note_end)}
        while True:
            try:
                with self._app.connection_for_read() as connection:
                    receiver = self._app.events.Receiver(connection, handlers=handlers)
                    receiver.capture(limit=None, timeout=None, wakeup=False)
            except Exception:  # noqa: BLE001 - whatever a transport raises; looking at the queue tells the user
                time.sleep(RECONNECT_INTERVAL)

    def _received(self, event: dict[str, Any]) -> None:
        self.has_heard = True
        self.learn(event["uuid"], event.get("name") or "")

    def _note_end(self, event: dict[str, Any]) -> None:
        self.has_heard = True
        with self._guard:
            name = self._open.pop(event["uuid"], None)
            if name is not None:
                self._ended.append((event["uuid"], name))


class Observer:
    """Looks at the queues and workers of an app's agent tasks.

    Args:
        app: The app.
        tasks: Its agent tasks.
        follows: Whether to listen to events between the looks; one look alone has nothing to hear.
        counts_at_encord: Whether to count what waits at Encord at each look; reads every page of each stage.
    """

    def __init__(
        self,
        app: Celery,
        tasks: Sequence[StageTask],
        *,
        follows: bool = True,
        counts_at_encord: bool = False,
    ) -> None:
        self._app = app
        self._tasks = tasks
        self._counts_at_encord = counts_at_encord
        self._can_ask = can_be_asked(app)
        self._events = TaskEvents(app, [task.name for task in tasks]) if follows else None
        self._ended = {task.name: 0 for task in tasks}
        self._outcomes: dict[str, Counter[Outcome]] | None = {task.name: Counter() for task in tasks}
        self._history: deque[tuple[float, dict[str, int]]] = deque(maxlen=RATE_LOOKS)
        self.lacks_events = False  #: whether workers work and do not say so

    def look(self) -> list[QueueView]:
        """Return how everything stands now. Raises kombu's OperationalError where the broker is down."""
        queues, running = self._ask_workers()
        self._take_ended(running)
        views: dict[str, QueueView] = {}
        for task in self._tasks:
            name = task.queue_name
            if name not in views:
                views[name] = QueueView(name, waiting_messages(self._app, name), self._workers(queues, name))
            views[name].stages.append(self._stage_view(task, running))
        return list(views.values())

    def _ask_workers(self) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
        """Return the queues of each worker, and the task name of each running message."""
        if not self._can_ask:
            return {}, {}
        # safe: a description of the arguments, where the specs themselves would be sent otherwise.
        queues, active, reserved = ask(
            self._app,
            "active_queues",
            "active",
            "reserved",
            arguments={"active": {"safe": True}},
        )
        running = _names_by_id(active)
        if self._events is not None:
            for message_id, name in {**_names_by_id(reserved), **running}.items():
                self._events.learn(message_id, name)
        return queues_by_worker(queues), running

    def _workers(self, queues: dict[str, frozenset[str]], queue: str) -> list[str] | None:
        return sorted(worker for worker, names in queues.items() if queue in names) if self._can_ask else None

    def _take_ended(self, running: dict[str, str]) -> None:
        if self._events is None:
            return
        by_task: dict[str, list[str]] = {}
        for message_id, name in self._events.take():
            by_task.setdefault(name, []).append(message_id)
        for name, ids in by_task.items():
            self._ended[name] += len(ids)
            self._read_outcomes(name, ids)
        if self._outcomes is not None:
            self._history.append(
                (time.monotonic(), {name: each.total() for name, each in self._outcomes.items()})
            )
        is_working = any(name in self._ended for name in running.values())
        self.lacks_events = not self._events.has_heard and (self.lacks_events or is_working)

    def _read_outcomes(self, name: str, ids: Sequence[str]) -> None:
        if self._outcomes is None:
            return
        try:
            group = AgentGroupResult((AgentResult(each, self._app) for each in ids), self._app)
            self._outcomes[name].update(group.counts)
        except SetupError:
            self._outcomes = None  # no result backend: the columns stay empty from here on

    def _stage_view(self, task: StageTask, running: dict[str, str]) -> StageView:
        can_hear = self._events is not None and not self.lacks_events
        return StageView(
            stage=str(task.stage_agent.stage),
            task=task.name,
            running=sum(name == task.name for name in running.values()) if self._can_ask else None,
            ended=self._ended[task.name] if can_hear else None,
            outcomes=Counter(self._outcomes[task.name]) if can_hear and self._outcomes is not None else None,
            per_minute=self._rate(task.name) if can_hear else None,
            at_encord=self._at_encord(task) if self._counts_at_encord else None,
        )

    def _rate(self, name: str) -> float | None:
        if len(self._history) < 2:
            return None
        (began_at, first), (ended_at, last) = self._history[0], self._history[-1]
        return round((last[name] - first[name]) / (ended_at - began_at) * 60, 1)

    @staticmethod
    def _at_encord(task: StageTask) -> int:
        return sum(1 for _ in task.runner.gateway.list_specs(task.agent_stage))


def _names_by_id(answers: dict[str, Any]) -> dict[str, str]:
    return {request["id"]: request["name"] for requests in answers.values() for request in requests or ()}
