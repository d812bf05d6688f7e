"""Look at each message for an agent before the worker takes it in hand, and refuse what is none.

The seam is Celery's: ``Task.Strategy`` names who takes in the messages of a task. Ours is Celery's own with a look
before it. So a worker that accepts pickle for other tasks unpickles nothing that is for an agent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default

from celery_agents.errors import SpecError
from celery_agents.settings import Settings
from celery_agents.task import StageTask
from celery_agents.worker import refusing
from celery_agents.worker.incoming import Incoming


def strategy(task: StageTask, app: Celery, consumer: Any) -> Callable[..., Any]:
    """Return what the consumer calls with each message for *task*."""
    take_in, settings = default(task, app, consumer), Settings.of(app)

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **options: Any) -> Any:
        incoming, specs = Incoming(message, body), None
        try:
            specs = incoming.specs(settings)
            return take_in(message, body, ack, reject, callbacks, **options)
        except SpecError as error:
            why = error
        except InvalidTaskError as error:  # an ETA or an expiry that is no time
            why = SpecError(f"Celery cannot take it: {error}.")
        refusing.refuse(task, consumer, incoming, specs, why)
        # Last, so that a worker that dies before is given it again, and tells.
        return reject(refusing.logger, consumer.connection_errors, requeue=False)

    return on_message
