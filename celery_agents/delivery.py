"""What the executor asks of one delivery of a message: what it may work on, and what it may commit.

Here is also one without a ledger; see ``ledgered`` for one with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from celery_agents.messages import TaskError
from celery_agents.work import Work

if TYPE_CHECKING:
    from celery_agents.batch import Batch, Execution


class Delivery(Protocol):
    """What the executor asks of a delivery."""

    def begin(self, works: Sequence[Work], stage_uuid: UUID) -> float:
        """Decide for each of *works* that is not this delivery's; return for how many seconds the stage is paused."""
        ...

    def is_suspect(self, work: Work) -> bool:
        """Whether *work* may be what killed an earlier delivery."""
        ...

    def is_careful(self) -> bool:
        """Whether an earlier delivery of this message has died."""
        ...

    def note(self, work: Work | None) -> None:
        """Note which agent task runs now, where that is of use."""
        ...

    def held(self, works: Sequence[Work]) -> Sequence[Work]:
        """Return those of *works* that may be committed, and decide for the others."""
        ...

    def settle(self, works: Iterable[Work]) -> None:
        """Remember what was decided for *works*."""
        ...

    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled the message, as far as is known without asking."""
        ...

    def is_superseded(self) -> bool:
        """Whether a newer delivery of the same message decides, as far as is known without asking."""
        ...

    def time_out(self, work: Work, error: TaskError) -> None:
        """Remember that *work* FAILED, before the process that cannot leave it ends."""
        ...

    def end(self, execution: Execution, batch: Batch) -> None:
        """Remember what came of it all; if something goes round again, ``close`` follows when it is sent."""
        ...

    def close(self) -> None:
        """Remember that what goes round again was sent: the delivery has not died."""
        ...

    def release(self, uuids: Sequence[UUID]) -> None:
        """Give back what this message does not decide about any more, because it was cancelled."""
        ...


class Unledgered:
    """A delivery that nobody keeps track of: everything may be worked on and committed, and nothing is remembered."""

    def begin(self, works: Sequence[Work], stage_uuid: UUID) -> float:
        """Take everything."""
        return 0.0

    def is_suspect(self, work: Work) -> bool:
        """Suspect nothing."""
        return False

    def is_careful(self) -> bool:
        """Be as always."""
        return False

    def note(self, work: Work | None) -> None:
        """Note nothing."""

    def held(self, works: Sequence[Work]) -> Sequence[Work]:
        """Commit everything."""
        return works

    def settle(self, works: Iterable[Work]) -> None:
        """Remember nothing."""

    def is_cancelled(self) -> bool:
        """Know of nobody."""
        return False

    def is_superseded(self) -> bool:
        """Know of nobody."""
        return False

    def time_out(self, work: Work, error: TaskError) -> None:
        """Remember nothing."""

    def end(self, execution: Execution, batch: Batch) -> None:
        """Remember nothing."""

    def close(self) -> None:
        """Remember nothing."""

    def release(self, uuids: Sequence[UUID]) -> None:
        """Have nothing to give back."""
