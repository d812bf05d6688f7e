"""What the parts of the ledger share: the keys, the connection, and how arguments and replies are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from celery_agents.ledger.connection import Connection
from celery_agents.ledger.keys import Keys, plain_id
from celery_agents.ledger.scripts import Packed, packed


@dataclass(frozen=True, slots=True)
class Retention:
    """How long, and how many, outcomes and failures are kept; the oldest go first, a little with each ``settle``.

    The same for all processes of a project: the latest that settles decides.
    """

    outcome_seconds: float = 24 * 3600.0
    outcomes: int = 100_000  #: some 200 bytes each where they are alike, else about 1 kB
    failure_seconds: float = 14 * 24 * 3600.0
    failures: int = 10_000  #: up to 64 kB each, usually some 5 kB


class Part:
    """A part of the ledger's operations."""

    keys: Keys
    retention: Retention
    _connection: Connection
    #: The agent tasks that were taken over last, and their text: most deliveries settle what they began with.
    _taken: tuple[tuple[UUID, ...], Packed] = ((), Packed(""))

    def _about_claims(self, stage_uuid: UUID) -> dict[str, Any]:
        """Return the fields of ``calls.OnClaims``."""
        keys = self.keys
        return {
            **keys.claims(stage_uuid),
            "outcomes": keys.outcomes,
            "outcome_times": keys.outcome_times,
            "stage": stage_uuid.hex,
        }


def pairs(batches: Mapping[str, Iterable[UUID]]) -> tuple[str, ...]:
    """Return message ids and packed agent tasks in turn, as scripts take them."""
    return tuple(part for id_, uuids in batches.items() for part in (plain_id(id_), packed(uuids)))


def milliseconds(seconds: float) -> int:
    """Return *seconds* as scripts take them."""
    return max(round(seconds * 1000), 1)  # Redis refuses to let something expire after nothing


def uuid_or_none(text: str) -> UUID | None:
    """Return *text* as a UUID, or None where it is none."""
    try:
        return UUID(text)
    except ValueError:
        return None


def groups(reply: Sequence[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Return pairs, triples and so on of a flat reply; what is flat is read faster by everybody."""
    return zip(*[iter(reply)] * size, strict=True)
