"""Sweep a stage because somebody asked for it, as Encord's webhook does: once, however often they ask.

Whoever asks sends a small message, and a worker sweeps: nothing is lost when the process that was asked ends. While
that message waits in its queue nobody sends another, see ``ledger.asking``. A sweep that was held up asks for the next
one itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.exceptions import Ignore
from celery.utils.log import get_task_logger

from celery_agents.claims import QUEUED_SECONDS
from celery_agents.producer.beat import sweep
from celery_agents.producer.continuous import require_ledger
from celery_agents.producer.publishing import connected
from celery_agents.producer.reports import Reason, SentMessage
from celery_agents.producer.tasks import FIRST_PAUSE, LONGEST_PAUSE, MOST_TRIES, AskedSweepTask, name_of_asked
from celery_agents.task import StageTask

logger = get_task_logger(__name__)

#: What the ledger notes of a message that sweeps, see ``Ledger.note_sent``.
SWEEP = "sweep"
#: Message ids that a sweep tells of at most, so that its result stays small.
MOST_IDS = 1_000
#: Seconds until the next try of a sweep that another one, or the high-water mark, holds up.
LOOK_AGAIN = 5.0
#: Why a sweep left something out, where another sweep need not look again soon.
_NO_HURRY = frozenset({"held", Reason.LIMIT.value})


@dataclass(frozen=True, slots=True)
class AskedSweep:
    """The message that makes a sweep which was asked for."""

    id: str  #: Celery id
    is_new: bool  #: it was sent now; otherwise it was waiting in its queue already


def ask(task: StageTask, *, countdown: float = 0, **options: Any) -> AskedSweep:
    """Have a worker sweep the stage of *task* once; return when that is safe.

    Args:
        task: The Celery task of the stage's agent.
        countdown: Seconds until it shall begin.
        options: ``max_in_flight``, as for a sweep from beat; those of the first who asks count.

    Raises:
        SetupError: There is no ledger or no such stage, or the broker cannot be used.
        LedgerError: The ledger's Redis cannot be used.
        EncordException: Encord cannot be reached, or refuses.
    """
    require_ledger([task])
    ledger, stage_uuid = task.runner.ledger, task.agent_stage.uuid
    assert ledger is not None  # as required above
    asked = ledger.ask_sweep(stage_uuid, str(uuid.uuid4()), QUEUED_SECONDS)
    if not asked.is_sent:
        ledger.note_sent(asked.message_id, SWEEP, noted_for(task.app))
        _send(task, asked.message_id, countdown, options)
        ledger.confirm_sweep(stage_uuid, asked.message_id, QUEUED_SECONDS)
    return AskedSweep(asked.message_id, is_new=not asked.is_sent)


def noted_for(app: Celery) -> float:
    """Return for how many seconds it is noted what a message is: not longer than its result is kept.

    A message that is known to have been sent, and of which nothing is stored, is taken to wait in its queue.
    """
    kept = app.conf.result_expires
    seconds = kept.total_seconds() if isinstance(kept, timedelta) else kept
    return min(seconds or QUEUED_SECONDS, QUEUED_SECONDS)


def _send(task: StageTask, message_id: str, countdown: float, options: Mapping[str, Any]) -> None:
    sweeper = task.app.tasks[name_of_asked(task.runner.project_hash)]
    given = {name: value for name, value in options.items() if value is not None}
    with connected(task.app) as producer:
        sweeper.apply_async(
            kwargs={"stages": [str(task.stage_agent.stage)], **given},
            task_id=message_id,
            producer=producer,
            countdown=countdown or None,
            expires=QUEUED_SECONDS,
        )


def sweep_asked(
    sweeper: AskedSweepTask, stages: list[str], *, tries: int = 0, max_in_flight: int | None = None
) -> dict[str, Any]:
    """Sweep the stage, unless another sweep has begun since it was asked for.

    Returns:
        What was sent and left out, see ``SweepReport.as_dict``; ``ids`` of the messages, the first ``MOST_IDS`` of
        them; ``goes_on_in``: the message that will sweep the rest, where something was in the way.

    Raises:
        SetupError: The stage has no agent here, or is not there; there is no ledger.
        celery.exceptions.Ignore: Another sweep has begun.
    """
    (task,) = sweeper.stage_tasks(stages)
    require_ledger([task])
    _begin(sweeper, task)
    ids: list[str] = []

    def note(message: SentMessage) -> None:
        task.runner.ledger.note_sent(message.id, str(message.size), noted_for(task.app))  # type: ignore[union-attr]
        ids.extend([message.id] if len(ids) < MOST_IDS else [])

    report = sweep(sweeper, stages=stages, max_in_flight=max_in_flight, on_sent=note)
    return {**report, "ids": ids, "goes_on_in": _go_on(task, report, tries, max_in_flight)}


def _begin(sweeper: AskedSweepTask, task: StageTask) -> None:
    ledger, request = task.runner.ledger, sweeper.request
    assert ledger is not None  # as required by the caller
    is_again = (request.delivery_info or {}).get("redelivered") or request.retries
    if not (ledger.begin_sweep(task.agent_stage.uuid) or is_again):
        raise Ignore("Another sweep has begun since this one was asked for.")
    if not request.called_directly:
        sweeper.update_state(state="STARTED")


def _go_on(task: StageTask, report: Mapping[str, Any], tries: int, max_in_flight: int | None) -> str | None:
    """Ask for the rest, where something is in the way of this sweep; return the message that will see to it."""
    left_out = [each for each in report["left_out"] if each["reason"] not in _NO_HURRY]
    if not left_out:
        return None
    why = left_out[-1]
    tries = tries + 1 if why["reason"] == "error" else 0
    if tries > MOST_TRIES:
        logger.error("Gave up sweeping %s after %d tries: %s", why["stage"], tries, why["detail"])
        return None
    return ask(task, countdown=_pause(why, tries), tries=tries, max_in_flight=max_in_flight).id


def _pause(why: Mapping[str, Any], tries: int) -> float:
    if why["reason"] == Reason.STOPPING:
        return 0.0  # by another worker
    if why["reason"] == Reason.PAUSED:
        return float(why["seconds"])
    return min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE) if tries else LOOK_AGAIN
