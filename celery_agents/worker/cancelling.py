"""Tell those who work on a message that it was revoked, and have the ledger remember it.

Celery's revoke command reaches the worker itself: what has not begun is thrown away when its turn comes, and what runs
goes on to its end. Here a timer of the consumer looks at what was revoked: the pool's processes learn of it through
``stopping``, and the ledger keeps it, so that it holds after all workers were restarted.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, bootsteps
from celery.utils.log import get_logger
from celery.worker import state

from celery_agents import stopping
from celery_agents.claims import QUEUED_SECONDS
from celery_agents.errors import LedgerError
from celery_agents.results import ledgers_of
from celery_agents.task import StageTask

logger = get_logger(__name__)

#: Seconds between two looks.
INTERVAL = 0.5
#: Of so many messages at most the ledger is told at one look.
MOST_AT_ONCE = 1_000


def on_worker_init(sender: Any, **_: Any) -> None:
    """Look at what is revoked in a worker that has agents."""
    if any(isinstance(task, StageTask) for task in sender.app.tasks.values()):
        sender.app.steps["consumer"].add(Cancelling)


class Cancelling(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Looks at what was revoked, as long as the consumer runs."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        self._timer_entry: Any = None
        self._told: set[str] = set()
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        """Begin to look."""
        self._timer_entry = c.timer.call_repeatedly(INTERVAL, self._look, (c.app,))

    def stop(self, c: Any) -> None:  # noqa: ARG002  (Celery calls it so)
        """Look no more: the connection is lost, or the worker stops."""
        if self._timer_entry is not None:
            self._timer_entry.cancel()
            self._timer_entry = None

    def _look(self, app: Celery) -> None:
        for request in tuple(state.active_requests):
            if request.id in state.revoked and not stopping.is_cancelled(request.id):
                stopping.cancel(request.id)
        if len(state.revoked) != len(self._told):
            self._tell_ledgers(app, set(state.revoked))

    def _tell_ledgers(self, app: Celery, revoked: set[str]) -> None:
        new = [str(each) for each in list(revoked - self._told)[:MOST_AT_ONCE]]
        self._told = (self._told & revoked) | set(new)
        try:
            for ledger in ledgers_of(app):
                ledger.cancel(new, QUEUED_SECONDS)
        except LedgerError as error:
            logger.warning("That messages were revoked is forgotten with this worker: %s", error)
