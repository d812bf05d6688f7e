"""The ledger's operations on what was asked for from outside: sweeps, and which messages were sent.

However often somebody asks for a sweep of a stage, one message is on its way that makes it. The mark that says so is
taken away when that sweep begins, before it lists anything: whoever asks later asks for another. Nobody who asked is
left without a sweep that began afterwards, also where a process died between setting the mark and sending the message.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from celery_agents.ledger import calls
from celery_agents.ledger.keys import plain_id
from celery_agents.ledger.part import Part, milliseconds

#: Seconds for which a message that shall sweep is taken to be in its queue. After a purge, nobody who asks waits longer
#: in vain; while no worker runs, one message more is sent per such time, of which the first that runs serves all.
TRUSTED = 60.0


class Asked(NamedTuple):
    """Which message makes a sweep that was asked for."""

    message_id: str
    is_sent: bool  #: it waits in its queue; else whoever asks has to send it, and to confirm that


class Asking(Part):
    """What was asked for."""

    def ask_sweep(self, stage_uuid: UUID, message_id: str, ttl: float) -> Asked:
        """Note that a stage is to be swept, by *message_id* unless there is a message for that already."""
        call = calls.AskSweep(
            asked=self.keys.asked(stage_uuid),
            message_id=plain_id(message_id),
            ttl=milliseconds(ttl),
            trusted=milliseconds(TRUSTED),
        )
        id_, is_sent = self._connection.run(call)
        return Asked(id_, bool(is_sent))

    def confirm_sweep(self, stage_uuid: UUID, message_id: str, ttl: float) -> None:
        """Note that the message which ``ask_sweep`` named is in its queue."""
        key = self.keys.asked(stage_uuid)
        self._connection.run(
            calls.ConfirmSweep(asked=key, message_id=plain_id(message_id), ttl=milliseconds(ttl))
        )

    def begin_sweep(self, stage_uuid: UUID) -> bool:
        """Take the mark away, to be called before anything is listed; return whether a sweep was still asked for."""
        return self._connection.command("GETDEL", self.keys.asked(stage_uuid)) is not None

    def note_sent(self, message_id: str, what: str, ttl: float) -> None:
        """Note that a message was, or will be, sent for this project, and *what* it is."""
        self._connection.command("SET", self.keys.sent(plain_id(message_id)), what, "PX", milliseconds(ttl))

    def sent_as(self, message_id: str) -> str | None:
        """Return what was noted of a message; "" where only a delivery of it is known, None where nothing is.

        Two round trips where nothing was noted.
        """
        id_ = plain_id(message_id)
        what: str | None = self._connection.command("GET", self.keys.sent(id_))
        if what is not None:
            return what
        return "" if self._connection.command("EXISTS", self.keys.message(id_)) else None
