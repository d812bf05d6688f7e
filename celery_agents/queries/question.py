"""What is asked for by one query, and until when."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery_agents.claims import Spec
from celery_agents.errors import SetupError
from celery_agents.messages import TaskOutcome, TaskSpec
from celery_agents.redaction import redact
from celery_agents.task import StageTask
from celery_agents.waiting import Deadline

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger

logger = logging.getLogger(__name__)

#: What was decided: agent task -> outcome.
Outcomes = dict[UUID, TaskOutcome]


class ImpossibleError(Exception):
    """Raised inside of a query where a try cannot be made; nothing has been begun then, nor will be."""


class UncertainError(SetupError):
    """Raised where a message may have been sent or not, and no ledger would keep a second try from doing it again."""


@dataclass(slots=True)
class Answer:
    """What came of one try."""

    outcomes: Outcomes
    held: Mapping[UUID, str]  #: what another message has: agent task -> that message


@dataclass(frozen=True, slots=True)
class Question:
    """One query.

    Args:
        task: The Celery task of the agent that is asked.
        specs: Agent task -> its spec as JSON text, each once.
        deadline: When the answer is no longer wanted.
        once: Forget the result when it is read.
        stage_uuid: Where claims are made; None where nobody knows, and nothing is claimed.
    """

    task: StageTask
    specs: Mapping[UUID, str]
    deadline: Deadline
    once: bool
    stage_uuid: UUID | None

    @property
    def ledger(self) -> Ledger | None:
        """Where claims are made; None where they are not."""
        return None if self.stage_uuid is None else self.task.runner.ledger

    @property
    def claimed_at(self) -> UUID:
        """The stage's UUID for the claims; of no meaning where there is no ledger."""
        return self.stage_uuid or UUID(int=0)

    @property
    def seconds_left(self) -> float:
        """How long the answer is still wanted."""
        return self.deadline.at_most(math.inf)

    @property
    def expires(self) -> datetime | None:
        """When the answer is no longer wanted, for a message; None for never."""
        left = self.seconds_left
        return None if math.isinf(left) else datetime.now(UTC) + timedelta(seconds=left)

    def some(self, task_uuids: Collection[UUID]) -> list[Spec]:
        """Return these agent tasks with their specs, in the order in which they were asked for."""
        return [(uuid, text) for uuid, text in self.specs.items() if uuid in task_uuids]


def read_spec(raw: object, task: StageTask) -> TaskSpec:
    """Return what somebody asks about as a spec: JSON text, a JSON object, a ``TaskSpec``, or the SDK's agent task.

    Raises:
        SpecError: It is none of these.
    """
    dump: Any = getattr(raw, "model_dump_json", None)
    return TaskSpec.decode(dump() if callable(dump) else raw, task.runner.settings.max_spec_bytes)


def stage_of(task: StageTask, specs: Iterable[TaskSpec]) -> UUID | None:
    """Return the UUID of the stage; Encord is asked, once in this process, where nobody else knows it.

    None where there is no ledger, or where Encord does not tell: a worker claims what is sent all the same.
    """
    if task.runner.ledger is None:
        return None
    declared = task.stage_agent.stage
    if isinstance(declared, UUID):
        return declared
    named = {spec.stage_uuid for spec in specs}
    if len(named) == 1 and (only := named.pop()) is not None:
        return only
    try:
        return task.agent_stage.uuid
    except Exception as error:  # noqa: BLE001  (no key, no network; who runs the agent says so)
        logger.info("A query claims nothing, as Encord does not tell its stage: %s", redact(str(error)))
        return None
