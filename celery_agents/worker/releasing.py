"""Give back the claims of messages that a worker throws away.

Those are revoked ones, those whose ``expires`` has passed, those for a task that this worker does not know, and those
that it refuses, see ``refusing``. What cannot be decompressed or is no Celery message at all is dropped by Celery
without a word to anybody: if it had claims, they lapse.
"""

from __future__ import annotations

from typing import Any

from celery.utils.log import get_logger

from celery_agents.errors import SpecError
from celery_agents.messages import as_specs
from celery_agents.settings import Settings
from celery_agents.task import StageTask
from celery_agents.worker import refusing, unclaiming
from celery_agents.worker.incoming import Incoming

logger = get_logger(__name__)


def on_task_revoked(sender: Any, request: Any, **_: Any) -> None:
    """Release what a message had claimed that was revoked or has expired."""
    if isinstance(sender, StageTask) and request.args:
        unclaiming.release(sender, request.id, as_specs(request.args[0]))


def on_task_unknown(sender: Any, message: Any, name: Any, **_: Any) -> None:
    """Say what became of agent tasks whose agent this worker does not have; of other messages, nothing."""
    app, incoming, settings = sender.app, Incoming.of(message), Settings.of(sender.app)
    try:
        specs = incoming.specs(settings)
    except SpecError:
        return
    known = unclaiming.decoded(specs, settings.max_spec_bytes)
    if not known or incoming.id is None:
        return
    why = _no_such_agent(name, app)
    logger.error("Message %s with %d specs was dropped. %s", incoming.id, len(specs), why)
    refusing.store(app, incoming, specs, SpecError(why))
    unclaiming.release_anywhere(app, incoming.id, known)


def _no_such_agent(name: Any, app: Any) -> str:
    ours = ", ".join(sorted(each.name for each in app.tasks.values() if isinstance(each, StageTask)))
    return (
        f"The worker that got this message has no agent of the name {str(name)!r:.200}; it has {ours or 'none'}. "
        "Whoever sent it runs other code than the worker: restart the older one, and sweep again."
    )
