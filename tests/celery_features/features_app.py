"""An app module on which a worker shows every feature of Celery; what happens is written to Redis for the tests."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery, Task, signals
from encord.workflow.stages.agent import AgentTask
from redis import Redis

from celery_agents import QueueRunner, StageTask, TaskCompletionResult

QUEUE = os.environ["QUEUE"]
app = Celery("features", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(
    task_default_queue=QUEUE,
    task_routes={"route": {"queue": f"{QUEUE}-routed"}},
    task_annotations={
        "route": {"rate_limit": "1/h", "on_success": lambda *given: note("annotated", given[2])}
    },
    broker_connection_retry_on_startup=True,
)
app.conf.update(json.loads(os.environ.get("SETTINGS", "{}")))

record = Redis.from_url(os.environ["RECORD_URL"], decode_responses=True)


def note(what: str, message_id: Any, **more: Any) -> None:
    """Write down that something happened to a message."""
    record.rpush(f"{QUEUE}:{message_id}", json.dumps([what, more], default=str))


def will(task: AgentTask) -> str:
    """Return what the test wants of the agent for this agent task: the first of a list each time, else to go on."""
    chosen: Any = record.lpop(f"{QUEUE}:{task.data_title}")
    return str(chosen or "go on")


def wait_until_released(name: str) -> None:
    """Take until the test says so."""
    while not record.exists(f"{QUEUE}:{name}:released"):
        time.sleep(0.02)


class Noting(Task):  # type: ignore[misc]  # celery ships no types
    """A class of tasks as a team has it for all of its own: nothing in it knows of agents."""

    autoretry_for = (ConnectionError,)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Celery calls it before each attempt at a message."""
        note("before_start", task_id)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Celery calls it with the completion result."""
        note("on_success", task_id, told=TaskCompletionResult.model_validate_json(retval).success)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Celery calls it with the error that carries the completion result."""
        note("on_failure", task_id, told=[each.outcome for each in exc.result.outcomes])

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Celery calls it when something of a message goes round again."""
        note("on_retry", task_id, told=type(exc).__name__)


runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


@runner.stage(
    "Pre-label",
    name="pre_label",
    base=Noting,
    bind=True,
    after_return=lambda self, state, result, message_id, *rest: note("after_return", message_id, told=state),
    retry_backoff=False,
    default_retry_delay=0,
)
def pre_label(self: StageTask, task: AgentTask) -> str:
    """Do what the test wants."""
    note("agent", self.request.id, title=task.data_title, queue=self.request.delivery_info["routing_key"])
    record.rpush(f"{QUEUE}:order", self.request.id)
    wish = will(task)
    if wish == "raise":
        raise ValueError("not this one")
    if wish == "wait":
        wait_until_released(task.data_title)
    if wish == "retry":
        raise self.retry(exc=KeyError("not yet"), countdown=0.1, max_retries=2)
    if wish == "lose the connection":
        raise ConnectionError("it passes")
    return "labelled"


@runner.stage("Route", name="route")
def route(task: AgentTask) -> str:
    """Send it on."""
    return "small"


@app.task(name="specs_of", shared=False)  # type: ignore[untyped-decorator]
def specs_of(specs: list[str]) -> list[str]:
    """Find what is to be done, as the first task of a chain does."""
    return specs


@app.task(name="pathways_of", shared=False)  # type: ignore[untyped-decorator]
def pathways_of(results: str | list[str]) -> list[str | None]:
    """Read the results of agents, as the last task of a chain or the body of a chord does."""
    read = [
        TaskCompletionResult.model_validate_json(each)
        for each in ([results] if isinstance(results, str) else results)
    ]
    return [outcome.pathway_name for result in read for outcome in result.outcomes]


@app.task(name="note_linked", shared=False)  # type: ignore[untyped-decorator]
def note_linked(result: str, key: str) -> None:
    """Be linked to an agent's message."""
    note("linked", key, told=TaskCompletionResult.model_validate_json(result).success)


@app.task(name="note_failure", shared=False)  # type: ignore[untyped-decorator]
def note_failure(request: Any, error: Any, traceback: Any, key: str) -> None:
    """Be linked to an agent's message for when it fails."""
    note("link_error", key, told=type(error).__name__)


def _note_signal(sender: Any, **given: Any) -> None:
    request = getattr(given.get("request"), "id", None)
    message_id = given.get("task_id") or request or getattr(sender.request, "id", None)
    note(given["signal"].name, message_id)


for signal in (
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
    signals.task_revoked,
):
    signal.connect(_note_signal, weak=False)
