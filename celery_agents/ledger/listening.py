"""The ledger's operations for who asks for one outcome now: which queues have listeners, and taking a message back."""

from __future__ import annotations

from uuid import UUID

from celery_agents.ledger import calls
from celery_agents.ledger.keys import Key, plain_id
from celery_agents.ledger.part import Part, milliseconds


class Listening(Part):
    """Who listens to a queue."""

    def listen(self, queue: str, worker: str, ttl: float) -> None:
        """Note that *worker* listens to *queue*; it counts for *ttl* seconds, unless it says so again."""
        self._connection.run(
            calls.Listen(listeners=self._listeners(queue), ttl=milliseconds(ttl), worker=plain_id(worker))
        )

    def stop_listening(self, queue: str, worker: str) -> None:
        """Note that *worker* listens to *queue* no more."""
        self._connection.command("ZREM", self._listeners(queue), plain_id(worker))

    def listeners(self, queue: str) -> int:
        """Return how many workers listen to *queue*, whether they are busy or not."""
        return int(self._connection.run(calls.CountListeners(listeners=self._listeners(queue))))

    def withdraw(self, stage_uuid: UUID, message_id: str, ttl: float) -> bool:
        """Cancel a message and release its claims, where it waits in its queue; return whether that is so.

        All in one step: what is taken back will not be run by a worker that is given the message later.

        Args:
            stage_uuid: The stage of its agent tasks.
            message_id: Its Celery id.
            ttl: For how long it may still be in its queue.
        """
        id_, keys = plain_id(message_id), self.keys
        call = calls.Withdraw(
            **self._about_claims(stage_uuid),
            cancelled=keys.cancelled,
            message_id=id_,
            ttl=milliseconds(ttl),
        )
        return bool(self._connection.run(call))

    def _listeners(self, queue: str) -> Key:
        return self.keys.listeners(plain_id(queue))
