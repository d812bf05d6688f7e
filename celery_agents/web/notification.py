"""What a verified request of Encord's says: that agent tasks wait at a stage, or something that is for others.

The envelope, as Encord's own package reads it (encord-agents, ``core/webhooks.py``): ``uid``, ``version``, ``source``,
``event_type``, ``event_created_timestamp`` and ``payload``; fields and reasons are added without a new version, which
is kept for what breaks the shape. One URL may be set at several stages, so events for others come here as well.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

#: The event that an agent stage sends when its batch size or its longest wait is reached.
WORK_AVAILABLE = "agent_stage_work_available_event"
#: The version of the envelope that is read.
VERSION = 1


class MalformedError(Exception):
    """Raised for a body that is not an envelope of Encord's, or lacks what its event should have."""


class OtherEventError(Exception):
    """Raised for an event that is not about an agent stage; the sentence says which."""


class OtherVersionError(Exception):
    """Raised for our event in a version that may mean anything; the sentence says which."""


class Notification(BaseModel):
    """Agent tasks wait at a stage. Which, and how many by now, only Encord can tell."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    project_hash: UUID
    stage_uuid: UUID
    pending_count: int | None = None  #: when the notification was made
    reason: str | None = None  #: such as ``batch_size_reached`` or ``max_wait_elapsed``


class _Envelope(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    event_type: str
    version: Any = None
    payload: Any = None


def read(body: bytes) -> Notification:
    """Read a body that was verified.

    Raises:
        MalformedError: It is not an envelope.
        OtherEventError: It is for others, whatever its version.
        OtherVersionError: It is ours, in another version.
    """
    try:
        envelope = _Envelope.model_validate_json(body)
        if envelope.event_type != WORK_AVAILABLE:
            raise OtherEventError(f"Events of type {envelope.event_type[:100]!r} are not acted on here.")
        # True is equal to 1 as well.
        if type(envelope.version) is not int or envelope.version != VERSION:
            raise OtherVersionError(
                f"Version {str(envelope.version)[:20]!r} of {WORK_AVAILABLE} is not known here, only {VERSION}: "
                "a newer celery_agents may know it."
            )
        return Notification.model_validate(envelope.payload)
    except ValidationError as error:
        raise MalformedError(_complaint(error)) from None


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"This is not a notification of Encord's: {where + ': ' if where else ''}{first['msg']}."
