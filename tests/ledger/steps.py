"""Every operation of the ledger, one after the other: for tests that must not forget one."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

from celery_agents.ledger import Ledger
from tests.ledger.conftest import STAGE, TTL, failed, proceeded, settle

TASKS = [uuid4() for _ in range(3)]
FIRST, SECOND, THIRD = TASKS


class Story:
    """A message that is sent, crashes, is delivered again, and ends; and what people ask about it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.token = 0

    def _take_over(self) -> None:
        self.token = self.ledger.take_over(STAGE, "a", TASKS, TTL).token

    def _settle_two(self) -> None:
        alike = [proceeded(task, data_hash=task) for task in (FIRST, SECOND)]
        settle(self.ledger, "a", self.token, alike, is_last=False)

    def _settle_last(self) -> None:
        settle(self.ledger, "a", self.token, [failed(THIRD)])

    def steps(self) -> list[Callable[[], object]]:
        """Return the steps; each is one call of one operation."""
        ledger = self.ledger
        return [
            lambda: ledger.claim(STAGE, {"a": TASKS}, TTL),
            lambda: ledger.confirm(STAGE, ["a"], TTL),
            self._take_over,
            lambda: ledger.note_running(STAGE, "a", self.token, FIRST),
            self._take_over,
            lambda: ledger.note_running(STAGE, "a", self.token, None),
            lambda: ledger.note_death("a", "killed"),
            lambda: ledger.hold(STAGE, "a", self.token, TASKS, TTL),
            self._settle_two,
            self._settle_last,
            lambda: ledger.who_holds(STAGE, TASKS),
            lambda: ledger.in_flight(STAGE),
            lambda: ledger.outcomes_of(TASKS),
            lambda: ledger.outcomes_of_data(TASKS),
            lambda: ledger.failures_of(TASKS),
            lambda: ledger.failures(error_type="ValueError"),
            lambda: ledger.discard(TASKS),
            lambda: ledger.permit(rate=1.0, longest=10.0),
            lambda: ledger.note_pace(STAGE, 3, 1.5),
            lambda: ledger.pace(STAGE),
            lambda: ledger.pause(STAGE, TTL),
            lambda: ledger.paused_for(STAGE),
            lambda: ledger.cancel(["a"], TTL),
            lambda: ledger.is_cancelled("a"),
            lambda: ledger.lock_sweep(STAGE, "beat", TTL),
            lambda: ledger.unlock_sweep(STAGE, "beat"),
            lambda: ledger.listen("queue", "worker", TTL),
            lambda: ledger.listeners("queue"),
            lambda: ledger.stop_listening("queue", "worker"),
            lambda: ledger.withdraw(STAGE, "a", TTL),
            lambda: ledger.ask_sweep(STAGE, "asked", TTL),
            lambda: ledger.confirm_sweep(STAGE, "asked", TTL),
            lambda: ledger.begin_sweep(STAGE),
            lambda: ledger.note_sent("a", "1", TTL),
            lambda: ledger.sent_as("a"),
            lambda: ledger.release(STAGE, "a", TASKS),
            lambda: ledger.release(STAGE, "a"),
        ]


#: Operations that take several round trips, each of the scripts above.
LONG_STEPS: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.release_all(STAGE),
]
