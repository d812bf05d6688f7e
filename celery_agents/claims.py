"""Claim agent tasks before they are sent, so that none is in two messages, whoever else sweeps at the same time."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents.errors import LedgerError

if TYPE_CHECKING:
    from celery_agents.ledger import Ledger

logger = logging.getLogger(__name__)

#: Seconds for which a message may wait in its queue before a sweep may send its agent tasks once more.
QUEUED_SECONDS = 24 * 3600.0
#: The same for a message that is being sent, until it is known to be in its queue: a producer that is killed in that
#: moment leaves claims for messages which never were sent. Ten times what connecting to a broker may take.
SENDING_SECONDS = 120.0

#: An agent task's UUID, and its spec as JSON text.
Spec = tuple[UUID, str]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that may be sent."""

    message_id: str
    specs: Sequence[Spec]


def claim(
    ledger: Ledger | None,
    stage_uuid: UUID,
    batches: Sequence[Sequence[Spec]],
    *,
    ttl: float = QUEUED_SECONDS,
    force: bool = False,
    is_needed: bool = False,
    on_skipped: Callable[[Mapping[UUID, str]], object] | None = None,
) -> list[Outgoing]:
    """Return the messages that may be sent for *batches*, each with what it could claim.

    Args:
        ledger: The project's; without one everything may be sent.
        stage_uuid: Where they wait.
        batches: What each message shall carry.
        ttl: Seconds until the claims lapse, if nobody takes them over.
        force: Take also what other messages have.
        is_needed: Do not go on without a ledger that cannot be used.
        on_skipped: Told what was left out: agent task -> the message that has it.

    Raises:
        LedgerError: The ledger is needed and cannot be used.
    """
    outgoing = {str(uuid.uuid4()): batch for batch in batches}
    messages = [Outgoing(message_id, batch) for message_id, batch in outgoing.items()]
    if ledger is None:
        return messages
    wanted = {message.message_id: [task_uuid for task_uuid, _ in message.specs] for message in messages}
    try:
        claimed = ledger.claim(stage_uuid, wanted, ttl, force=force)
    except LedgerError as error:
        if is_needed:
            raise
        logger.warning("The sweep goes on without the ledger, so something may be sent twice: %s", error)
        return messages
    if not claimed.held_by_others:
        return messages
    if on_skipped is not None:
        on_skipped(claimed.held_by_others)
    return [
        Outgoing(message.message_id, kept)
        for message in messages
        if (kept := _granted(message, frozenset(claimed.granted.get(message.message_id, ()))))
    ]


def _granted(message: Outgoing, granted: frozenset[UUID]) -> list[Spec]:
    return [spec for spec in message.specs if spec[0] in granted]


def confirm(ledger: Ledger | None, stage_uuid: UUID, messages: Sequence[Outgoing]) -> None:
    """Let the claims of *messages*, which are in their queue now, last as long as they may wait there."""
    if ledger is None:
        return
    try:
        ledger.confirm(stage_uuid, [message.message_id for message in messages], QUEUED_SECONDS)
    except LedgerError as error:
        logger.warning(
            "If the messages just sent wait for more than %g s, a sweep may send their agent tasks once more: %s",
            SENDING_SECONDS,
            error,
        )


def release(ledger: Ledger | None, stage_uuid: UUID, messages: Sequence[Outgoing]) -> None:
    """Give back what *messages*, which may not have been sent, have claimed."""
    if ledger is None:
        return
    try:
        for message in messages:
            ledger.release(stage_uuid, message.message_id, [task_uuid for task_uuid, _ in message.specs])
    except LedgerError as error:
        logger.warning("Claims of what could not be sent stay until they lapse: %s", error)
