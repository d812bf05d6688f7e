"""The ledger's operations on marks: paused stages, cancelled messages, and who sweeps."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from celery_agents.ledger import calls
from celery_agents.ledger.keys import plain_id
from celery_agents.ledger.part import Part, milliseconds

#: How many messages are known to be cancelled at most.
MOST_CANCELLED = 100_000


class Marking(Part):
    """What holds for a while."""

    def pause(self, stage_uuid: UUID, seconds: float) -> float:
        """Pause a stage on all workers; of several pauses the longest counts. Return how long it is paused for."""
        return (
            float(
                self._connection.run(
                    calls.Pause(pause=self.keys.pause(stage_uuid), ttl=milliseconds(seconds))
                )
            )
            / 1000
        )

    def paused_for(self, stage_uuid: UUID) -> float:
        """Return how long a stage is paused for; 0 where it is not."""
        return max(int(self._connection.command("PTTL", self.keys.pause(stage_uuid))), 0) / 1000

    def cancel(self, message_ids: Iterable[str], ttl: float) -> None:
        """Mark messages as cancelled; it is told by ``take_over``, ``note_running`` and ``hold``.

        What such a message has claimed while it waits in its queue may be claimed by others at once.
        """
        ids = tuple(plain_id(each) for each in message_ids)
        if ids:
            self._connection.run(
                calls.Cancel(
                    cancelled=self.keys.cancelled, ttl=milliseconds(ttl), most=MOST_CANCELLED, rest=ids
                )
            )

    def is_cancelled(self, message_id: str) -> bool:
        """Return whether a message is marked as cancelled."""
        return bool(
            self._connection.run(
                calls.IsCancelled(cancelled=self.keys.cancelled, message_id=plain_id(message_id))
            )
        )

    def lock_sweep(self, stage_uuid: UUID, holder: str, ttl: float) -> bool:
        """Take the lock on sweeping a stage, or renew it; return whether *holder* has it."""
        call = calls.LockSweep(
            lock=self.keys.sweep(stage_uuid), holder=plain_id(holder), ttl=milliseconds(ttl)
        )
        return bool(self._connection.run(call))

    def unlock_sweep(self, stage_uuid: UUID, holder: str) -> bool:
        """Give the lock on sweeping a stage back; return whether *holder* had it."""
        return bool(
            self._connection.run(calls.UnlockSweep(lock=self.keys.sweep(stage_uuid), holder=plain_id(holder)))
        )
