"""The ledger's operations on records: what became of agent tasks, and what failed."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from celery_agents.ledger import alike, calls, records
from celery_agents.ledger.keys import plain_id
from celery_agents.ledger.part import Part, groups, milliseconds
from celery_agents.ledger.records import RECORD_LIMIT, Settlement, decoded
from celery_agents.ledger.replies import Found, Page
from celery_agents.ledger.scripts import packed
from celery_agents.messages import TaskOutcome
from celery_agents.redaction import bounded

#: Of how many groups outcomes are kept at least: the oldest goes as a whole.
FEWEST_GROUPS = 10
#: How many records of outcomes are searched in one round trip: a millisecond or two of Redis.
PAGE = 300


@lru_cache(maxsize=16)  # a process is one worker's, but for tests
def _as_json(where: str) -> str:
    return json.dumps(bounded(where, 200))


class Recording(Part):
    """What became of agent tasks."""

    def settle(
        self,
        stage_uuid: UUID,
        message_id: str,
        token: int,
        settlements: Sequence[TaskOutcome | Settlement],
        *,
        where: str,
        is_last: bool,
    ) -> dict[UUID, str]:
        """Record outcomes and release their claims.

        A success clears an older failure and the crashes of its agent task. GONE does not replace PROCEEDED.

        Args:
            stage_uuid: Their stage.
            message_id: Their message.
            token: What ``take_over`` gave; 0 where it could not be asked.
            settlements: The outcomes; those without a ``task_uuid`` are left out. Those that are alike cost little.
            where: The worker.
            is_last: Whether the delivery ends with this, well or not: the next one is then not a redelivery. For a
                delivery that puts everything back, or that goes round again, this may be a call without outcomes.

        Returns:
            The agent tasks whose outcomes were left out, and the message that decides about each: another one, or this
            one by a newer delivery.
        """
        id_, place = plain_id(message_id), _as_json(where)
        most = min(alike.MOST_ALIKE, self.retention.outcomes // FEWEST_GROUPS)
        singles, grouped = alike.sort_out(settlements, max(most, 1))
        call = calls.Settle(
            **self._about_records(stage_uuid),
            message=self.keys.message(id_),
            message_id=id_,
            token=str(token),
            is_last=is_last,
            singles=records.encode(singles, id_, place),
            rest=alike.encode(grouped, place, self._taken),
        )
        left_out = groups(self._connection.run(call), 2)
        return {UUID(uuid): message_id if by == id_ else by for uuid, by in left_out}

    def _about_records(self, stage_uuid: UUID) -> dict[str, Any]:
        """Return those fields of ``calls.Settle`` that are the same for all messages of a stage."""
        keys, retention = self.keys, self.retention
        return {
            **self._about_claims(stage_uuid),
            "crashes": keys.crashes,
            "failures": keys.failures,
            "failure_times": keys.failure_times,
            "stages": keys.stages,
            "holders_prefix": keys.holders_prefix,
            "outcomes_kept": milliseconds(retention.outcome_seconds),
            "most_outcomes": retention.outcomes,
            "failures_kept": milliseconds(retention.failure_seconds),
            "most_failures": retention.failures,
        }

    def outcomes_of(self, task_uuids: Collection[UUID]) -> Found:
        """Return what became of these agent tasks, at every stage where something did."""
        keys = self.keys
        call = calls.LookUp(
            outcomes=keys.outcomes,
            outcome_times=keys.outcome_times,
            stages=keys.stages,
            holders_prefix=keys.holders_prefix,
            kept=milliseconds(self.retention.outcome_seconds),
            longest=RECORD_LIMIT,
            uuids=packed(task_uuids),
        )
        return Found(*decoded(groups(self._connection.run(call), 2)))

    def outcomes_of_data(self, data_hashes: Collection[UUID]) -> Found:
        """Return what became of the agent tasks of these data units.

        For people: all that is kept is searched, in a round trip for each few hundred records.
        """
        found: dict[str, str] = {}
        cursor = "0"
        while True:
            cursor, page = self._connection.run(self._search_call(data_hashes, cursor))
            found.update(groups(page, 2))
            if cursor == "0":
                return Found(*decoded(found.items()))

    def _search_call(self, data_hashes: Collection[UUID], cursor: str) -> calls.Search:
        keys = self.keys
        return calls.Search(
            outcomes=keys.outcomes,
            outcome_times=keys.outcome_times,
            holders_prefix=keys.holders_prefix,
            kept=milliseconds(self.retention.outcome_seconds),
            longest=RECORD_LIMIT,
            data_hashes=packed(dict.fromkeys(data_hashes)),
            cursor=cursor,
            size=PAGE,
        )

    def failures_of(self, task_uuids: Collection[UUID]) -> Found:
        """Return the failures of these agent tasks, with their specs."""
        keys = self.keys
        call = calls.FailuresOf(
            store=keys.failures,
            times=keys.failure_times,
            stages=keys.stages,
            kept=milliseconds(self.retention.failure_seconds),
            longest=RECORD_LIMIT,
            uuids=packed(task_uuids),
        )
        return Found(*decoded(groups(self._connection.run(call), 2)))

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
            kept=milliseconds(self.retention.failure_seconds),
            most=self.retention.failures,
            longest=RECORD_LIMIT,
            stage=stage_uuid.hex if stage_uuid else "",
            error_type=error_type or "",
            since=int(since.timestamp() * 1000) if since else 0,
            skipped=skip,
            wanted=limit,
        )
        total, reply = self._connection.run(call)
        found, complaints = decoded(groups(reply, 2))
        return Page(found, total, complaints)

    def discard(self, task_uuids: Collection[UUID]) -> int:
        """Forget that these agent tasks failed or crashed, as before a replay; return how many failures there were."""
        keys = self.keys
        call = calls.Discard(
            store=keys.failures,
            times=keys.failure_times,
            crashes=keys.crashes,
            stages=keys.stages,
            task_uuids=packed(task_uuids),
        )
        return int(self._connection.run(call))
