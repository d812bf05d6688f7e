"""Bare Celery with the SDK: what any agent costs at least, by hand."""

from __future__ import annotations

import os
from functools import cache

from celery import Celery
from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage, AgentTask

from benchmarks.apps import agents

app = Celery("benchmarks", broker=os.environ["BROKER_URL"], backend=os.environ["BROKER_URL"])


@cache
def stage() -> AgentStage:
    """Return the SDK's stage; asked for once in a process."""
    client = EncordUserClient.create_with_ssh_private_key(
        ssh_private_key_path=os.environ["ENCORD_SSH_KEY_FILE"], domain=os.environ["ENCORD_DOMAIN"]
    )
    project = client.get_project(os.environ["CELERY_AGENTS_PROJECT"])
    return project.workflow.get_stage(name="Pre-label", type_=AgentStage)


@app.task
def nothing(spec: str | list[str]) -> None:
    """Do nothing with what came."""


@app.task
def same_calls(spec: str) -> None:
    """Make the calls that an agent makes which needs nothing: see that it is there, and move it."""
    data_hash = AgentTask.model_validate_json(spec).data_hash
    for agent_task in stage().get_tasks(data_hash=data_hash):
        agent_task.proceed(agents.PATHWAY)


@app.task
def compute(specs: str | list[str]) -> None:
    """Compute for each what `agents.compute` does."""
    for _ in [specs] if isinstance(specs, str) else specs:
        agents.compute_alone()


task = app.tasks[f"{__name__}.{os.environ['AGENT']}"]
