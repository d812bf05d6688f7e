"""Send without subscribing to each result: whoever waits for one subscribes then."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import Celery

from celery_agents import backends

_is_unsubscribed: ContextVar[bool] = ContextVar("celery_agents.is_unsubscribed", default=False)


@contextmanager
def unsubscribed(app: Celery) -> Iterator[None]:
    """Give a context in which this thread, and no other, sends messages without subscribing to their results.

    Celery's Redis backend subscribes when it sends, and unsubscribes when the result is dropped. Nobody reads what the
    server answers to that, so that its buffer grows (5 MB after 60,000 messages) until it cuts the connection; and
    sending one spec a message takes twice as long.
    """
    backend = backends.backend_of(app)
    # Other backends get ready for results when they send: RPC declares the queue for them.
    if backends.kind_of(backend).notifies:
        _heed(backend)
    token = _is_unsubscribed.set(True)
    try:
        yield
    finally:
        _is_unsubscribed.reset(token)


def _heed(backend: Any) -> None:
    # celery.app.base.Celery.send_task calls celery.backends.base.Backend.on_task_call for each message. Celery's own
    # switch (denied_join_result) holds for all threads, which then could not wait for any result.
    if not isinstance(backend.on_task_call, _OnTaskCall):
        backend.on_task_call = _OnTaskCall(backend.on_task_call)


class _OnTaskCall:
    """A backend's ``on_task_call``, but where nobody shall subscribe."""

    def __init__(self, subscribe: Callable[..., Any]) -> None:
        functools.update_wrapper(self, subscribe)
        self._subscribe = subscribe

    def __call__(self, producer: Any, task_id: str) -> Any:
        return None if _is_unsubscribed.get() else self._subscribe(producer, task_id)
