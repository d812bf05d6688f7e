"""Whether a worker listens to the queue of an agent."""

from __future__ import annotations

import logging
import time
from typing import Any
from weakref import WeakKeyDictionary

from celery_agents.errors import LedgerError
from celery_agents.redaction import redact
from celery_agents.task import StageTask
from celery_agents.waiting import Deadline

logger = logging.getLogger(__name__)

#: Seconds that workers have to answer where there is no ledger; all of them pass, for nobody knows how many there are.
ANSWER_SECONDS = 1.0
#: Seconds for which what they answered is taken for true.
REMEMBERED = 10.0

#: App -> queue -> when it was asked, and whether a worker listened.
_answers: WeakKeyDictionary[Any, dict[str, tuple[float, bool]]] = WeakKeyDictionary()


def is_listened(task: StageTask, deadline: Deadline) -> bool:
    """Return whether a worker that lives listens to the task's queue, busy or not; in one round trip with a ledger."""
    ledger, queue = task.runner.ledger, task.queue_name
    if ledger is not None:
        try:
            return ledger.listeners(queue) > 0
        except LedgerError as error:
            logger.warning("Workers are asked whether they listen, as the ledger does not tell: %s", error)
    return _inspected(task.app, queue, deadline)


def _inspected(app: Any, queue: str, deadline: Deadline) -> bool:
    known = _answers.setdefault(app, {})
    asked_at, is_consumed = known.get(queue, (float("-inf"), False))
    if time.monotonic() - asked_at > REMEMBERED:
        is_consumed = _ask_workers(app, queue, deadline.at_most(ANSWER_SECONDS))
        known[queue] = time.monotonic(), is_consumed
    return is_consumed


def _ask_workers(app: Any, queue: str, seconds: float) -> bool:
    try:
        replies = app.control.inspect(timeout=seconds).active_queues() or {}
    except Exception as error:  # noqa: BLE001  (whatever a broker in trouble raises: then no worker can be reached)
        logger.warning("No worker can be asked whether it listens: %s", redact(str(error)))
        return False
    return any(
        each["name"] == queue for queues in replies.values() if isinstance(queues, list) for each in queues
    )
