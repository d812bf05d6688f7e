"""Send one spec, as a message of its own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from celery_agents import backends, claims
from celery_agents.claims import SENDING_SECONDS
from celery_agents.errors import SpecError
from celery_agents.messages import TaskSpec
from celery_agents.producer.asked import noted_for
from celery_agents.producer.publishing import publish
from celery_agents.results import AgentResult
from celery_agents.task import StageTask
from celery_agents.web.problems import InFlightError
from celery_agents.web.served import stage_of


def send(task: StageTask, raw: Any, *, force: bool = False) -> AgentResult:
    """Send a spec to an agent; return when the broker has it.

    Args:
        task: The Celery task of the agent.
        raw: The spec, as ``TaskSpec.decode`` takes it.
        force: Send it also where another message has the agent task; what that one is running is then not committed.

    Raises:
        SpecError: It is none, or for another project or stage.
        InFlightError: Another message has the agent task.
        SetupError: There is no such stage, or the broker or the result backend cannot be used.
        LedgerError: The ledger's Redis cannot be used: whether it is in flight is not known.
    """
    runner, stage = task.runner, stage_of(task)
    spec = addressed(TaskSpec.decode(raw, runner.settings.max_spec_bytes), runner.project_hash, stage.uuid)
    backends.check(task.app)
    held: dict[UUID, str] = {}
    messages = claims.claim(
        runner.ledger,
        stage.uuid,
        [[(spec.uuid, spec.encode())]],
        ttl=SENDING_SECONDS,
        force=force,
        is_needed=True,
        on_skipped=held.update,
    )
    if held:
        raise InFlightError(
            f"Agent task {spec.uuid} is in flight, in message {held[spec.uuid]}; with force it is sent all the same.",
            held[spec.uuid],
        )
    try:
        if runner.ledger is not None:
            # Before it is sent: it can be asked for as soon as anybody has its id.
            runner.ledger.note_sent(messages[0].message_id, "1", noted_for(task.app))
        ((_, result),) = publish(task, stage.title, messages, {})
    except BaseException:
        claims.release(runner.ledger, stage.uuid, messages)
        raise
    claims.confirm(runner.ledger, stage.uuid, messages)
    return result


def addressed(spec: TaskSpec, project_hash: UUID, stage_uuid: UUID) -> TaskSpec:
    """Return *spec* with the project and the stage that it is for.

    Raises:
        SpecError: It names others.
    """
    for what, named, wanted in (
        ("project", spec.project_hash, project_hash),
        ("stage", spec.stage_uuid, stage_uuid),
    ):
        if named not in (None, wanted):
            raise SpecError(f"This task spec is for {what} {named}, and not for {wanted}.")
    return spec.model_copy(update={"project_hash": project_hash, "stage_uuid": stage_uuid})
