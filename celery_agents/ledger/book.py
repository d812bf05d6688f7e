"""The ledger's operations. The theory is in the package's docstring, the layout in ``keys``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery_agents.ledger import calls
from celery_agents.ledger.connection import Connection
from celery_agents.ledger.keys import DEFAULT_PREFIX, Key, Keys, plain_id
from celery_agents.ledger.records import RECORD_LIMIT, Record, Settlement, decode, encode
from celery_agents.ledger.replies import Claim, Claimed, Found, Held, Page, Standing, Takeover
from celery_agents.ledger.scripts import Packed, packed

if TYPE_CHECKING:
    from redis import Redis
    from redis.cluster import RedisCluster

#: Seconds for which a crash counts against an agent task. A week: a poison one that is swept every hour is not given
#: three new lives each time, and one that was repaired is forgiven in the end.
CRASHES_KEPT = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long, and how many, outcomes and failures are kept; the oldest go first, a little with each ``settle``.

    The same for all processes of a project: the latest that settles decides.
    """

    outcome_seconds: float = 24 * 3600.0
    outcomes: int = 100_000  #: about 1 kB each
    failure_seconds: float = 14 * 24 * 3600.0
    failures: int = 10_000  #: up to 64 kB each, usually some 5 kB


class Ledger:
    """What is in flight in one project, what became of it, and what failed.

    Each operation is one round trip, takes thousands of agent tasks at once, may be repeated, and raises LedgerError
    where Redis cannot be used. Times are in seconds.

    Args:
        redis: The URL of a Redis 6.2 or newer or of a Valkey, or a client that is configured already.
        project_hash: The project; each has its own keys.
        prefix: What all keys begin with.
        retention: What is kept of what has ended.

    Raises:
        LedgerError: The URL is not one of Redis. Nothing is connected yet, see ``check``.
        ValueError: The prefix has a brace.
    """

    def __init__(
        self,
        redis: str | Redis | RedisCluster,
        project_hash: UUID,
        *,
        prefix: str = DEFAULT_PREFIX,
        retention: Retention | None = None,
    ) -> None:
        self.keys = Keys(project_hash, prefix)
        self.retention = retention or Retention()
        self._connection = Connection(redis)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of project {self.keys.project_hash} at {self._connection.address}>"

    def check(self) -> str:
        """Return which server this is, for people; LedgerError where there is none, or one that is too old."""
        return self._connection.check()

    def close(self) -> None:
        """Close what is open; the next operation opens it again."""
        self._connection.close()

    # ------------------------------------------------------------------------------------------------- claims

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
        pairs = [part for id_, uuids in batches.items() for part in (plain_id(id_), packed(uuids))]
        keys = self.keys.deadlines(stage_uuid), self.keys.holders(stage_uuid)
        reply = self._connection.run(calls.Claim(*keys, _ms(ttl), force, tuple(pairs)))
        refused = {(wanted_by, UUID(uuid)): holder for wanted_by, uuid, holder in _groups(reply, 3)}
        return Claimed(
            granted={
                id_: tuple(uuid for uuid in dict.fromkeys(uuids) if (plain_id(id_), uuid) not in refused)
                for id_, uuids in batches.items()
            },
            held_by_others={uuid: holder for (_, uuid), holder in refused.items()},
        )

    def take_over(
        self, stage_uuid: UUID, message_id: str, task_uuids: Collection[UUID], ttl: float
    ) -> Takeover:
        """Begin a delivery of a message: get a token newer than any, and its agent tasks, claimed or not.

        Not granted is what another message holds, and what an earlier delivery of this message has settled.
        """
        id_, keys = plain_id(message_id), self.keys
        call = calls.TakeOver(
            deadlines=keys.deadlines(stage_uuid),
            holders=keys.holders(stage_uuid),
            message=keys.message(id_),
            cancelled=keys.cancelled(id_),
            pause=keys.pause(stage_uuid),
            crashes=keys.crashes,
            outcomes=keys.outcomes,
            stage=stage_uuid.hex,
            message_id=id_,
            ttl=_ms(ttl),
            crashes_kept=_ms(CRASHES_KEPT),
            longest=RECORD_LIMIT,
            task_uuids=packed(task_uuids),
        )
        token, deliveries, suspect, is_cancelled, pause, refused, crashes, settled = self._connection.run(
            call
        )
        held_by_others = {UUID(uuid): holder for uuid, holder in _groups(refused, 2)}
        ended = [uuid for uuid, _ in _groups(settled, 2)]
        records, _ = _decoded((f"{uuid}/{stage_uuid.hex}", value) for uuid, value in _groups(settled, 2))
        return Takeover(
            token=int(token),
            # A record that cannot be read any more is still that of a settled agent task.
            granted=frozenset(task_uuids) - held_by_others.keys() - {UUID(uuid) for uuid in ended},
            held_by_others=held_by_others,
            settled={record.task_uuid: record for record in records},
            deliveries=deliveries,
            suspect=_uuid(suspect),
            crashes={UUID(uuid): count for uuid, count in _groups(crashes, 2)},
            is_cancelled=bool(is_cancelled),
            paused_for=pause / 1000,
        )

    def note_running(self, stage_uuid: UUID, message_id: str, token: int, task_uuid: UUID | None) -> Standing:
        """Note which agent task a careful delivery is on now, or that it is on none (None), as while it commits.

        If the delivery dies, this is the suspect of the next. It stays noted until ``settle``, or the next note.
        """
        id_, keys = plain_id(message_id), self.keys
        call = calls.NoteRunning(
            holders=keys.holders(stage_uuid),
            message=keys.message(id_),
            cancelled=keys.cancelled(id_),
            pause=keys.pause(stage_uuid),
            message_id=id_,
            token=str(token),
            task_uuid=task_uuid.hex if task_uuid else "",
        )
        is_held, is_cancelled, pause = self._connection.run(call)
        return Standing(bool(is_held), bool(is_cancelled), pause / 1000)

    def hold(
        self, stage_uuid: UUID, message_id: str, token: int, task_uuids: Collection[UUID], ttl: float
    ) -> Held:
        """Ask, before a commit, which agent tasks are still this delivery's, and renew their claims.

        Not held is what a newer delivery, another message, a release or a flush has taken. A claim that has only lapsed
        is still held, for a day.
        """
        id_, keys = plain_id(message_id), self.keys
        call = calls.Hold(
            deadlines=keys.deadlines(stage_uuid),
            holders=keys.holders(stage_uuid),
            message=keys.message(id_),
            cancelled=keys.cancelled(id_),
            pause=keys.pause(stage_uuid),
            message_id=id_,
            token=str(token),
            ttl=_ms(ttl),
            task_uuids=packed(task_uuids),
        )
        lost, is_cancelled, pause = self._connection.run(call)
        return Held(frozenset(task_uuids) - set(map(UUID, lost)), bool(is_cancelled), pause / 1000)

    def settle(
        self,
        stage_uuid: UUID,
        message_id: str,
        token: int,
        settlements: Sequence[Settlement],
        *,
        where: str,
        is_last: bool,
    ) -> frozenset[UUID]:
        """Record outcomes and release their claims.

        A success clears an older failure and the crashes of its agent task. GONE does not replace PROCEEDED.

        Args:
            stage_uuid: Their stage.
            message_id: Their message.
            token: What ``take_over`` gave; 0 where it could not be asked.
            settlements: The outcomes; those without a ``task_uuid`` are left out.
            where: The worker.
            is_last: Whether the delivery ends with this, well or not: the next one is then not a redelivery. For a
                delivery that puts everything back, or that goes round again, this may be a call without outcomes.

        Returns:
            The agent tasks whose outcomes were left out because a newer delivery decides about them.
        """
        id_ = plain_id(message_id)
        known = [each for each in settlements if each.outcome.task_uuid is not None]
        parts = [part for each in known for part in encode(each, id_, where)]
        superseded = self._connection.run(self._settle_call(stage_uuid, id_, token, parts, is_last=is_last))
        return frozenset(map(UUID, superseded))

    def _settle_call(
        self, stage_uuid: UUID, id_: str, token: int, parts: list[str], *, is_last: bool
    ) -> calls.Settle:
        keys = self.keys
        return calls.Settle(
            deadlines=keys.deadlines(stage_uuid),
            holders=keys.holders(stage_uuid),
            message=keys.message(id_),
            crashes=keys.crashes,
            outcomes=keys.outcomes,
            outcome_times=keys.outcome_times,
            by_data=keys.by_data,
            failures=keys.failures,
            failure_times=keys.failure_times,
            stages=keys.stages,
            stage=stage_uuid.hex,
            message_id=id_,
            token=str(token),
            is_last=is_last,
            outcomes_kept=_ms(self.retention.outcome_seconds),
            most_outcomes=self.retention.outcomes,
            failures_kept=_ms(self.retention.failure_seconds),
            most_failures=self.retention.failures,
            rest=tuple(parts),
        )

    def release(self, stage_uuid: UUID, message_id: str, task_uuids: Collection[UUID] | None = None) -> int:
        """Release what a message holds: it was revoked, has expired, or was rejected. Return how many there were.

        Without *task_uuids* every claim of the stage is looked at: two round trips for each thousand.
        """
        id_ = plain_id(message_id)
        if task_uuids is not None:
            return self._release(stage_uuid, id_, packed(task_uuids))
        return self._release_where(stage_uuid, id_)

    def release_all(self, stage_uuid: UUID, *, queued_only: bool = False) -> int:
        """Release every claim of a stage, as after a queue was purged; return how many there were.

        What is running then is not committed, unless *queued_only* leaves alone what a worker has taken over. Two round
        trips for each thousand claims.
        """
        return self._release_where(stage_uuid, "", queued_only=queued_only)

    def _release_where(self, stage_uuid: UUID, id_: str, *, queued_only: bool = False) -> int:
        number = 0
        for items in self._connection.hash_items(self.keys.holders(stage_uuid)):
            hexes = [
                uuid
                for uuid, holder in items.items()
                if len(uuid) == 32 and (not id_ or holder.endswith(f" {id_}"))
            ]
            number += self._release(stage_uuid, id_, Packed("".join(hexes)), queued_only=queued_only)
        return number

    def _release(self, stage_uuid: UUID, id_: str, task_uuids: Packed, *, queued_only: bool = False) -> int:
        keys = self.keys.deadlines(stage_uuid), self.keys.holders(stage_uuid)
        return int(self._connection.run(calls.Release(*keys, id_, queued_only, task_uuids)))

    def in_flight(self, stage_uuid: UUID) -> int:
        """Return how many agent tasks of a stage are claimed."""
        return int(self._connection.run(calls.InFlight(self.keys.deadlines(stage_uuid))))

    def who_holds(self, stage_uuid: UUID, task_uuids: Collection[UUID]) -> dict[UUID, Claim]:
        """Return the claims on these agent tasks; those that nobody claims are left out."""
        keys = self.keys.deadlines(stage_uuid), self.keys.holders(stage_uuid)
        reply = self._connection.run(calls.WhoHolds(*keys, packed(task_uuids)))
        return {
            UUID(uuid): Claim(message_id, int(token), int(left) / 1000)
            for uuid, message_id, token, left in _groups(reply, 4)
        }

    # ------------------------------------------------------------------------------------------------ records

    def outcomes_of(self, task_uuids: Collection[UUID]) -> Found:
        """Return what became of these agent tasks, at every stage where something did."""
        return self._look_up(self.keys.outcomes, task_uuids)

    def outcomes_of_data(self, data_hashes: Collection[UUID]) -> Found:
        """Return what became of the agent tasks of these data units."""
        return self._look_up(self.keys.outcomes, data_hashes, is_by_data=True)

    def failures_of(self, task_uuids: Collection[UUID]) -> Found:
        """Return the failures of these agent tasks, with their specs."""
        return self._look_up(self.keys.failures, task_uuids)

    def _look_up(self, store: Key, uuids: Collection[UUID], *, is_by_data: bool = False) -> Found:
        keys, is_failures = self.keys, store == self.keys.failures
        seconds = self.retention.failure_seconds if is_failures else self.retention.outcome_seconds
        call = calls.LookUp(
            store=store,
            times=keys.failure_times if is_failures else keys.outcome_times,
            by_data=keys.by_data,
            stages=keys.stages,
            kept=_ms(seconds),
            longest=RECORD_LIMIT,
            is_by_data=is_by_data,
            uuids=packed(uuids),
        )
        return Found(*_decoded(_groups(self._connection.run(call), 2)))

    def failures(
        self,
        stage_uuid: UUID | None = None,
        *,
        since: datetime | None = None,
        error_type: str | None = None,
        limit: int = 100,
        skip: int = 0,
    ) -> Page:
        """Return the failures that are kept, newest first.

        Args:
            stage_uuid: Only those at this stage.
            since: Only those after this instant.
            error_type: Only those with this error: ``package.module.Error``, or its end, such as ``Error``.
            limit: How many of them.
            skip: How many newer ones to leave out, for the pages after the first.
        """
        call = calls.ListFailures(
            store=self.keys.failures,
            times=self.keys.failure_times,
            kept=_ms(self.retention.failure_seconds),
            most=self.retention.failures,
            longest=RECORD_LIMIT,
            stage=stage_uuid.hex if stage_uuid else "",
            error_type=error_type or "",
            since=int(since.timestamp() * 1000) if since else 0,
            skipped=skip,
            wanted=limit,
        )
        total, reply = self._connection.run(call)
        records, complaints = _decoded(_groups(reply, 2))
        return Page(records, total, complaints)

    def discard(self, task_uuids: Collection[UUID]) -> int:
        """Forget that these agent tasks failed or crashed, as before a replay; return how many failures there were."""
        keys = self.keys
        call = calls.Discard(keys.failures, keys.failure_times, keys.crashes, keys.stages, packed(task_uuids))
        return int(self._connection.run(call))

    # -------------------------------------------------------------------------------------------------- marks

    def pause(self, stage_uuid: UUID, seconds: float) -> float:
        """Pause a stage on all workers; of several pauses the longest counts. Return how long it is paused for."""
        return float(self._connection.run(calls.Pause(self.keys.pause(stage_uuid), _ms(seconds)))) / 1000

    def paused_for(self, stage_uuid: UUID) -> float:
        """Return how long a stage is paused for; 0 where it is not."""
        return max(int(self._connection.command("PTTL", self.keys.pause(stage_uuid))), 0) / 1000

    def cancel(self, message_id: str, ttl: float) -> None:
        """Mark a message as cancelled; it is told by ``take_over``, ``note_running`` and ``hold``."""
        key = self.keys.cancelled(plain_id(message_id))
        self._connection.command("SET", key, 1, "PX", _ms(ttl))

    def is_cancelled(self, message_id: str) -> bool:
        """Return whether a message is marked as cancelled."""
        return bool(self._connection.command("EXISTS", self.keys.cancelled(plain_id(message_id))))

    def lock_sweep(self, stage_uuid: UUID, holder: str, ttl: float) -> bool:
        """Take the lock on sweeping a stage, or renew it; return whether *holder* has it."""
        call = calls.LockSweep(self.keys.sweep(stage_uuid), plain_id(holder), _ms(ttl))
        return bool(self._connection.run(call))

    def unlock_sweep(self, stage_uuid: UUID, holder: str) -> bool:
        """Give the lock on sweeping a stage back; return whether *holder* had it."""
        return bool(self._connection.run(calls.UnlockSweep(self.keys.sweep(stage_uuid), plain_id(holder))))


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 1)  # Redis refuses to let something expire after nothing


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _groups(reply: Sequence[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Return pairs, triples and so on of a flat reply; what is flat is read faster by everybody."""
    return zip(*[iter(reply)] * size, strict=True)


def _decoded(named: Iterable[tuple[Any, ...]]) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """Read records; return them, newest first, and what is to be said of those that cannot be read."""
    records: list[Record] = []
    complaints: list[str] = []
    for name, value in named:
        try:
            records.append(decode(name, value))
        except ValueError as error:
            complaints.append(str(error))
    return tuple(sorted(records, key=lambda each: each.at, reverse=True)), tuple(complaints)
