"""The ledger's operations on claims: from the producer's, over each delivery's, to their release."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from celery_agents.ledger import calls
from celery_agents.ledger.keys import plain_id
from celery_agents.ledger.part import Part, groups, milliseconds, pairs, uuid_or_none
from celery_agents.ledger.records import RECORD_LIMIT, decoded
from celery_agents.ledger.replies import Claim, Claimed, Held, Standing, Takeover
from celery_agents.ledger.scripts import Packed, packed
from celery_agents.redaction import bounded

#: Seconds for which a crash counts against an agent task. A week: a poison one that is swept every hour is not given
#: three new lives each time, and one that was repaired is forgiven in the end.
CRASHES_KEPT = 7 * 24 * 3600.0
#: Longest note of how a process died, in characters.
DEATH_LIMIT = 500


class Claiming(Part):
    """Which message has an agent task."""

    def claim(
        self,
        stage_uuid: UUID,
        batches: Mapping[str, Collection[UUID]],
        ttl: float,
        *,
        force: bool = False,
    ) -> Claimed:
        """Claim agent tasks before their messages are sent.

        Args:
            stage_uuid: Their stage.
            batches: Message id -> the agent tasks that this message shall carry.
            ttl: How long a message may wait in its queue before a sweep may send its agent tasks once more.
            force: Take what others hold as well; what they are running is then not committed.
        """
        unique = {id_: _each_once(uuids) for id_, uuids in batches.items()}
        call = calls.Claim(
            **self._about_claims(stage_uuid),
            cancelled=self.keys.cancelled,
            ttl=milliseconds(ttl),
            is_forced=force,
            rest=pairs(unique),
        )
        reply = self._connection.run(call)
        refused = {(wanted_by, UUID(uuid)): holder for wanted_by, uuid, holder in groups(reply, 3)}
        granted = {
            id_: tuple(uuid for uuid in uuids if (plain_id(id_), uuid) not in refused) if refused else uuids
            for id_, uuids in unique.items()
        }
        return Claimed(granted, {uuid: holder for (_, uuid), holder in refused.items()})

    def confirm(self, stage_uuid: UUID, message_ids: Collection[str], ttl: float) -> int:
        """Let claims of messages that are in their queue by now last longer; return how many there are.

        Args:
            stage_uuid: Their stage.
            message_ids: What was sent of what was claimed. What a worker has taken over meanwhile is left out.
            ttl: As for ``claim``.
        """
        ids = tuple(map(plain_id, message_ids))
        call = calls.Confirm(**self._about_claims(stage_uuid), ttl=milliseconds(ttl), rest=ids)
        return int(self._connection.run(call))

    def take_over(
        self, stage_uuid: UUID, message_id: str, task_uuids: Sequence[UUID], ttl: float
    ) -> Takeover:
        """Begin a delivery of a message: get a token newer than any, and its agent tasks, claimed or not.

        Not granted is what another message holds, and what an earlier delivery of this message has settled.
        """
        id_, keys, tasks = plain_id(message_id), self.keys, packed(task_uuids)
        self._taken = (tuple(task_uuids), tasks)
        call = calls.TakeOver(
            **self._about_claims(stage_uuid),
            message=keys.message(id_),
            cancelled=keys.cancelled,
            pause=keys.pause(stage_uuid),
            crashes=keys.crashes,
            message_id=id_,
            ttl=milliseconds(ttl),
            crashes_kept=milliseconds(CRASHES_KEPT),
            longest=RECORD_LIMIT,
            task_uuids=tasks,
        )
        reply = self._connection.run(call)
        if isinstance(reply, str):  # there is nothing else to tell
            return Takeover(int(reply), task_uuids)
        token, deliveries, suspect, death, is_cancelled, pause, refused, crashes, settled = reply
        held_by_others = {UUID(uuid): holder for uuid, holder in groups(refused, 2)}
        ended = {UUID(uuid) for uuid, _ in groups(settled, 2)}
        records, _ = decoded((f"{uuid}/{stage_uuid.hex}", value) for uuid, value in groups(settled, 2))
        return Takeover(
            token=int(token),
            wanted=task_uuids,
            # A record that cannot be read any more is still that of a settled agent task.
            withheld=frozenset(held_by_others) | ended,
            held_by_others=held_by_others,
            settled={record.task_uuid: record for record in records},
            deliveries=deliveries,
            suspect=uuid_or_none(suspect),
            death=death,
            crashes={UUID(uuid): count for uuid, count in groups(crashes, 2)},
            is_cancelled=bool(is_cancelled),
            paused_for=pause / 1000,
        )

    def note_running(self, stage_uuid: UUID, message_id: str, token: int, task_uuid: UUID | None) -> Standing:
        """Note which agent task a careful delivery is on now, or that it is on none (None), as while it commits.

        If the delivery dies, this is the suspect of the next. It stays noted until ``settle``, or the next note.
        """
        id_, keys = plain_id(message_id), self.keys
        claims = keys.claims(stage_uuid)
        call = calls.NoteRunning(
            holders=claims["holders"],
            sizes=claims["sizes"],
            message=keys.message(id_),
            cancelled=keys.cancelled,
            pause=keys.pause(stage_uuid),
            message_id=id_,
            token=str(token),
            task_uuid=task_uuid.hex if task_uuid else "",
        )
        is_held, is_cancelled, pause = self._connection.run(call)
        return Standing(bool(is_held), bool(is_cancelled), pause / 1000)

    def note_death(self, message_id: str, how: str) -> bool:
        """Note how the process of a message's delivery died, for the next one; return whether that can be of use."""
        message = self.keys.message(plain_id(message_id))
        return bool(self._connection.run(calls.NoteDeath(message=message, how=bounded(how, DEATH_LIMIT))))

    def hold(
        self, stage_uuid: UUID, message_id: str, token: int, task_uuids: Sequence[UUID], ttl: float
    ) -> Held:
        """Ask, before a commit, which agent tasks are still this delivery's, and renew their claims.

        Not held is what a newer delivery, another message, a release or a flush has taken. A claim that has only lapsed
        is still held, for a day.
        """
        id_, keys = plain_id(message_id), self.keys
        call = calls.Hold(
            **self._about_claims(stage_uuid),
            message=keys.message(id_),
            cancelled=keys.cancelled,
            pause=keys.pause(stage_uuid),
            message_id=id_,
            token=str(token),
            ttl=milliseconds(ttl),
            task_uuids=packed(task_uuids),
        )
        lost, is_cancelled, is_superseded, pause = self._connection.run(call)
        return Held(
            task_uuids, frozenset(map(UUID, lost)), bool(is_cancelled), bool(is_superseded), pause / 1000
        )

    def release(self, stage_uuid: UUID, message_id: str, task_uuids: Collection[UUID] | None = None) -> int:
        """Release what a message holds: it was revoked, has expired, or was rejected. Return how many there were.

        Args:
            stage_uuid: The stage.
            message_id: The message.
            task_uuids: Of it only these; by default all.
        """
        if task_uuids is not None and not task_uuids:
            return 0
        return self._release(stage_uuid, plain_id(message_id), packed(task_uuids or ()))

    def release_all(self, stage_uuid: UUID, *, queued_only: bool = False) -> int:
        """Release every claim of a stage, as after a queue was purged; return how many there were.

        What is running then is not committed, unless *queued_only* leaves alone what a worker has taken over. Two round
        trips for each thousand claims.
        """
        pages = self._connection.hash_items(self.keys.claims(stage_uuid)["holders"])
        return sum(
            self._release(
                stage_uuid,
                "",
                Packed("".join(uuid for uuid in page if len(uuid) == 32)),
                queued_only=queued_only,
            )
            for page in pages
        )

    def _release(self, stage_uuid: UUID, id_: str, task_uuids: Packed, *, queued_only: bool = False) -> int:
        claims = self._about_claims(stage_uuid)
        call = calls.Release(**claims, message_id=id_, is_queued_only=queued_only, task_uuids=task_uuids)
        return int(self._connection.run(call))

    def in_flight(self, stage_uuid: UUID) -> int:
        """Return how many agent tasks of a stage are claimed; it costs the same for any number of messages."""
        return int(self._connection.run(calls.InFlight(**self._about_claims(stage_uuid))))

    def who_holds(self, stage_uuid: UUID, task_uuids: Collection[UUID]) -> dict[UUID, Claim]:
        """Return the claims on these agent tasks; those that nobody claims are left out."""
        call = calls.WhoHolds(**self._about_claims(stage_uuid), task_uuids=packed(task_uuids))
        return {
            UUID(uuid): Claim(message_id, bool(is_queued), int(left) / 1000)
            for uuid, message_id, is_queued, left in groups(self._connection.run(call), 4)
        }


def _each_once(uuids: Collection[UUID]) -> tuple[UUID, ...]:
    # To hash a UUID is a call of Python, and nearly always there is none twice.
    if len({uuid.int for uuid in uuids}) == len(uuids):
        return tuple(uuids)
    return tuple(dict.fromkeys(uuids))
