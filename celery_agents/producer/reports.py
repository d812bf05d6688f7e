"""What a sweep has to tell: what was sent, what was left out, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from celery_agents.errors import AgentsError
from celery_agents.redaction import redact

#: Says what an error means, in one sentence.
Explain = Callable[[Exception], str]


@dataclass(frozen=True, slots=True)
class SentMessage:
    """One message that the broker has accepted."""

    id: str  #: Celery id
    task: str  #: name of the Celery task
    stage: str  #: the stage's title
    size: int  #: how many agent tasks it carries


class Reason(StrEnum):
    """Why a stage is not swept, or not to its end."""

    FULL = "max_in_flight"
    LOCKED = "locked"
    PAUSED = "paused"
    LIMIT = "limit"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Hindrance:
    """What stands in the way of a sweep at present; ``str()`` says it to people."""

    reason: Reason
    in_flight: int | None = None  #: FULL: how many agent tasks of the stage
    goes_on_at: int | None = None  #: FULL: how many may be left of them when it goes on
    seconds: float | None = None  #: PAUSED: for how long

    def __str__(self) -> str:
        match self.reason:
            case Reason.FULL:
                return f"{self.in_flight:,} are in flight, it goes on at {self.goes_on_at:,}"
            case Reason.PAUSED:
                return f"Encord asked for a pause, which ends in {self.seconds:.0f} s"
            case Reason.LOCKED:
                return "another producer is sweeping it"
            case Reason.LIMIT:
                return "as many as allowed were sent, the rest is for the next sweep"
            case Reason.STOPPING:
                return "this process is stopping, or its time limit is near"

    def as_dict(self) -> dict[str, Any]:
        """This hindrance as a JSON object."""
        facts = {"in_flight": self.in_flight, "goes_on_at": self.goes_on_at, "seconds": self.seconds}
        return {
            "reason": self.reason.value,
            **{name: fact for name, fact in facts.items() if fact is not None},
        }


@dataclass(slots=True)
class StageReport:
    """What was sent of one stage, and what not."""

    stage: str  #: its title, or as it was declared where Encord was not asked yet
    task: str  #: name of the Celery task
    queue: str
    messages: int = 0
    agent_tasks: int = 0  #: how many the messages carry
    held: int = 0  #: how many were left out because other messages have them
    hindrance: Hindrance | None = None  #: why it was not swept, or not to its end
    error: Exception | None = None  #: what broke it off
    batch_size: int | None = None  #: what ``batch_size="auto"`` came to
    ids: list[str] = field(default_factory=list)  #: of the messages, where they are asked for

    def taken(self) -> StageReport:
        """Return what there is to tell now, and count from here on anew."""
        told = replace(self)
        self.messages = self.agent_tasks = self.held = 0
        self.error, self.ids = None, []
        return told

    def has_news(self) -> bool:
        """Whether something was sent, left out or broken off since the last time."""
        return bool(self.messages or self.held or self.error)

    def sent_as_dict(self) -> dict[str, Any]:
        """What was sent, as a JSON object."""
        names = ("stage", "task", "queue", "agent_tasks", "messages")
        chosen = {"batch_size": self.batch_size} if self.batch_size else {}
        return {name: getattr(self, name) for name in names} | chosen

    def sent(self) -> str:
        """What was sent, for people."""
        chosen = f", up to {self.batch_size:,} a message" if self.batch_size else ""
        return f"{self.stage} {self.agent_tasks:,}{chosen}"

    def left_out(self, explain: Explain) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield what was left out and why: as a JSON object, and for people."""
        if self.held:
            have = "another message has it" if self.held == 1 else "other messages have them"
            yield {"reason": "held", "agent_tasks": self.held}, f"{self.held:,} left out, {have}"
        if self.hindrance:
            yield self.hindrance.as_dict(), str(self.hindrance)
        if self.error:
            detail = explain(self.error)
            yield {"reason": "error", "detail": detail}, f"broken off: {detail}"


def explained(error: Exception) -> str:
    """Return what an error says, on one line and without secrets."""
    text = " ".join(redact(str(error)).split())
    return text if text and isinstance(error, AgentsError) else f"{type(error).__name__}: {text}"


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep of several stages has to tell."""

    stages: Sequence[StageReport]
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def messages(self) -> int:
        """How many were sent."""
        return sum(each.messages for each in self.stages)

    @property
    def agent_tasks(self) -> int:
        """How many agent tasks those messages carry."""
        return sum(each.agent_tasks for each in self.stages)

    def as_dict(self, explain: Explain = explained) -> dict[str, Any]:
        """This report as a JSON object."""
        return {
            "at": self.at.isoformat(timespec="milliseconds"),
            "sent": [each.sent_as_dict() for each in self.stages if each.messages],
            "left_out": [
                {"stage": each.stage, **why} for each in self.stages for why, _ in each.left_out(explain)
            ],
        }

    def as_line(self, explain: Explain = explained) -> str:
        """This report for people, on one line."""
        reasons = [f"{each.stage}: {why}" for each in self.stages for _, why in each.left_out(explain)]
        return "; ".join((self._sent() or ("nothing sent" if reasons else "nothing waits"), *reasons))

    def _sent(self) -> str:
        if not self.messages:
            return ""
        of_each = ", ".join(each.sent() for each in self.stages if each.messages)
        s, t = "" if self.messages == 1 else "s", "" if self.agent_tasks == 1 else "s"
        return f"sent {self.agent_tasks:,} agent task{t} in {self.messages:,} message{s} ({of_each})"
