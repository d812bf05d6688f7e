"""An app whose agents keep things, run in threads and get lists, and do to some agent tasks what a file says."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

from celery import Celery
from encord.project import Project

from celery_agents import AgentTask, Depends, QueueRunner

app = Celery("worker_app", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_BACKEND"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    worker_prefetch_multiplier=1,
    worker_proc_alive_timeout=0.2,  # less than loading takes
    agents_max_crashes=2,
)
runner = QueueRunner(os.environ["CELERY_AGENTS_PROJECT"], app=app)


def note(event: str) -> None:
    """Tell the test what happened, in this process."""
    with Path(os.environ["EVENTS"]).open("a") as events:
        events.write(f"{os.getpid()} {event}\n")


def habit_of(task: AgentTask) -> str | None:
    """Return what the file says for this agent task."""
    habits: dict[str, str] = json.loads(Path(os.environ["HABITS"]).read_text())
    return habits.get(str(task.uuid))


def misbehave(task: AgentTask) -> None:
    """Do what the file says."""
    habit = habit_of(task)
    if habit == "hang":
        time.sleep(120)
    elif habit == "exit":
        os._exit(3)


def load_model(project: Project) -> Iterator[str]:
    """Load what every agent needs, from the start."""
    time.sleep(float(os.environ.get("LOADING_SECONDS", "0")))
    note("loaded")
    yield f"model of {project.title}"
    note("unloaded")


async def open_session() -> AsyncIterator[Any]:
    """Open what lives on the event loop."""
    note("opened")
    yield asyncio.get_running_loop()
    note("closed")


Model = Annotated[str, Depends(load_model, scope="worker", warm=True)]
Session = Annotated[Any, Depends(open_session, scope="worker")]


if os.environ["KIND"] == "threads and lists":

    @runner.stage("Pre-label", concurrency=4, time_limit=1.5, bind=True)
    def pre_label(self: Any, task: AgentTask, model: Model) -> str:
        """Run in threads, and know the message all the same."""
        note(f"message {self.request.id}")
        misbehave(task)
        return "labelled"

    @runner.stage("Route", batched=True, time_limit=1.5)
    def route(tasks: list[AgentTask], model: Model) -> list[str]:
        """Get lists."""
        note(f"list of {len(tasks)}")
        for task in tasks:
            misbehave(task)
        return ["small"] * len(tasks)

else:

    @runner.stage("Pre-label", soft_time_limit=0.5, time_limit=1.5)
    async def pre_label(task: AgentTask, model: Model, session: Session) -> str:
        """Run on the event loop."""
        assert session is asyncio.get_running_loop()
        note("ran")
        if habit_of(task) == "hang":
            await asyncio.sleep(120)
        elif habit_of(task) == "block":
            time.sleep(120)  # noqa: ASYNC251  (that is its habit)
        return "labelled"
