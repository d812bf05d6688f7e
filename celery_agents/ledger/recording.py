"""The ledger's operations on records: what became of agent tasks, and what failed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from celery_agents.ledger import calls
from celery_agents.ledger.keys import Key, plain_id
from celery_agents.ledger.part import Part, groups, milliseconds
from celery_agents.ledger.records import RECORD_LIMIT, Settlement, decoded, encode
from celery_agents.ledger.replies import Found, Page
from celery_agents.ledger.scripts import packed


class Recording(Part):
    """What became of agent tasks."""

    def settle(
        self,
        stage_uuid: UUID,
        message_id: str,
        token: int,
        settlements: Sequence[Settlement],
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
            settlements: The outcomes; those without a ``task_uuid`` are left out.
            where: The worker.
            is_last: Whether the delivery ends with this, well or not: the next one is then not a redelivery. For a
                delivery that puts everything back, or that goes round again, this may be a call without outcomes.

        Returns:
            The agent tasks whose outcomes were left out, and the message that decides about each: another one, or this
            one by a newer delivery.
        """
        id_ = plain_id(message_id)
        known = [each for each in settlements if each.outcome.task_uuid is not None]
        text = encode(known, id_, where)
        left_out = self._connection.run(self._settle_call(stage_uuid, id_, token, text, is_last=is_last))
        return {UUID(uuid): message_id if by == id_ else by for uuid, by in groups(left_out, 2)}

    def _settle_call(
        self, stage_uuid: UUID, id_: str, token: int, text: str, *, is_last: bool
    ) -> calls.Settle:
        keys = self.keys
        return calls.Settle(
            **keys.claims(stage_uuid),
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
            outcomes_kept=milliseconds(self.retention.outcome_seconds),
            most_outcomes=self.retention.outcomes,
            failures_kept=milliseconds(self.retention.failure_seconds),
            most_failures=self.retention.failures,
            settled=text,
        )

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
            kept=milliseconds(seconds),
            longest=RECORD_LIMIT,
            is_by_data=is_by_data,
            uuids=packed(uuids),
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
        records, complaints = decoded(groups(reply, 2))
        return Page(records, total, complaints)

    def discard(self, task_uuids: Collection[UUID]) -> int:
        """Forget that these agent tasks failed or crashed, as before a replay; return how many failures there were."""
        keys = self.keys
        call = calls.Discard(keys.failures, keys.failure_times, keys.crashes, keys.stages, packed(task_uuids))
        return int(self._connection.run(call))
