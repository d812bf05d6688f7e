"""What the ledger answers. All frozen, times in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from celery_agents.ledger.records import Record


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a producer got of what it wanted to send."""

    granted: Mapping[str, tuple[UUID, ...]]  #: message -> what it may carry, in order, each once
    held_by_others: Mapping[UUID, str]  #: agent task -> the message that has it


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that has not lapsed."""

    message_id: str
    is_queued: bool  #: whether no worker has taken its message over
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Takeover:
    """A delivery that begins."""

    token: int  #: to be shown by ``hold``, ``note_running`` and ``settle``
    wanted: Sequence[UUID]  #: what was asked for
    withheld: frozenset[UUID] = frozenset()  #: what of it is not to be worked on
    held_by_others: Mapping[UUID, str] = field(default_factory=dict)  #: agent task -> the message that has it
    settled: Mapping[UUID, Record] = field(
        default_factory=dict
    )  #: decided by an earlier delivery of this message: not to be run again
    deliveries: int = 1  #: begun since one ended, this one included: more than 1 after a crash
    suspect: UUID | None = None  #: what the delivery before was on when it died, if it noted that
    #: how the process of the delivery before died, as its worker saw it; empty where nobody saw it
    death: str = ""
    crashes: Mapping[UUID, int] = field(
        default_factory=dict
    )  #: agent task -> how often it was the suspect, of those that ever were
    is_cancelled: bool = False
    paused_for: float = 0.0

    @property
    def granted(self) -> frozenset[UUID]:
        """What is to be worked on: nearly always all, which need not be looked at one by one."""
        return frozenset(self.wanted) - self.withheld

    @property
    def is_redelivered(self) -> bool:
        """Whether the delivery before this one never ended: time to be careful."""
        return self.deliveries > 1


@dataclass(frozen=True, slots=True)
class Held:
    """What may be committed."""

    wanted: Sequence[UUID]  #: what was asked for
    lost: frozenset[UUID]  #: what of it may not be committed
    is_cancelled: bool
    is_superseded: bool  #: a newer delivery of the same message is at work
    paused_for: float

    @property
    def held(self) -> frozenset[UUID]:
        """What was renewed."""
        return frozenset(self.wanted) - self.lost


@dataclass(frozen=True, slots=True)
class Standing:
    """How a careful delivery stands with one agent task."""

    is_held: bool
    is_cancelled: bool
    paused_for: float


@dataclass(frozen=True, slots=True)
class Found:
    """Records, newest first, and a sentence for each that cannot be read."""

    records: tuple[Record, ...]
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the failures that were asked for, newest first."""

    records: tuple[Record, ...]
    total: int  #: how many there are on all pages
    complaints: tuple[str, ...] = ()  #: a sentence for each that cannot be read
