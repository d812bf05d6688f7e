"""Connections to Encord that are kept for the next call, and calls that end at a deadline.

The SDK opens a session, and with it TCP and TLS, for each call. Both of its APIs get their session from
``encord.http.querier.create_new_session``, which is all that is replaced here: by a function that hands every call on
to the SDK's own, unless it comes from a client of ours. Our clients are known by ``connection_retries`` of their
settings, which the SDK passes through as it is. Other clients in the process, the user's own too, notice nothing.

- A call takes a session that nobody uses, the last one used first, and gives it back when the answer has been read.
  So n threads or greenlets that call at once have n connections, and a thread that calls again has the one it had.
- A session is closed when it has been idle for a while, so that no worker holds what the server has long closed.
- A fork closes what is idle before it happens: a child never shares a connection with its parent.

How a session keeps its connection is in ``kept``.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import requests
from encord.http import querier
from encord.http.v2 import api_client
from urllib3.util import Retry

from celery_agents.deadlines import until
from celery_agents.gateway.kept import KeptSession
from celery_agents.gateway.permits import Permit, await_permit
from celery_agents.sessions import Sessions

logger = logging.getLogger(__name__)

_sdk_factory = getattr(querier, "create_new_session", None)
_KNOWN_PARAMETERS = ["max_retries", "backoff_factor", "connect_retries", "backoff_jitter"]


class OurRetries(int):
    """``RequestsSettings.connection_retries`` of a client of ours.

    Attributes:
        call_timeout: Seconds that one call may take in all.
        keep: Whether its connections are kept for the next call.
        permit: Asked before each call.
    """

    call_timeout: float
    keep: bool
    permit: Permit | None


def our_retries(times: int, call_timeout: float, *, keep: bool, permit: Permit | None) -> int:
    """Return *times* for ``RequestsSettings.connection_retries``, with which a client's calls go through here.

    Where the SDK is not as we know it, its own sessions stay: each call a connection, each wait bounded, but not their
    sum, and no permit asked for. That is said once.
    """
    if not _is_in_place():
        return times
    marked = OurRetries(times)
    marked.call_timeout, marked.keep, marked.permit = call_timeout, keep, permit
    return marked


@functools.cache
def _is_in_place() -> bool:
    """Put our function in the place of the SDK's, at the first call; return whether that could be done."""
    homes: tuple[Any, ...] = (querier, api_client)
    known = all(getattr(home, "create_new_session", None) is _sdk_factory for home in homes)
    if (
        not known
        or _sdk_factory is None
        or list(inspect.signature(_sdk_factory).parameters) != _KNOWN_PARAMETERS
    ):
        logger.warning(
            "encord.http.querier.create_new_session is not what it was, so each call to Encord opens a connection of "
            "its own, agents_call_timeout bounds each wait for Encord, not their sum, and agents_rate_limit limits "
            "nothing. A newer celery-agents may know this encord."
        )
        return False
    for home in homes:
        home.create_new_session = _create_new_session
    return True


def _create_new_session(
    max_retries: int | None, backoff_factor: float, connect_retries: int, backoff_jitter: float = 0.0
) -> AbstractContextManager[requests.Session]:
    """Stand in for ``encord.http.querier.create_new_session``."""
    if not isinstance(connect_retries, OurRetries):
        sessions: AbstractContextManager[requests.Session] = _sdk_factory(  # type: ignore[misc]  # known to be there
            max_retries, backoff_factor, connect_retries, backoff_jitter
        )
        return sessions
    return _leased(
        connect_retries, _policy(max_retries, backoff_factor, int(connect_retries), backoff_jitter)
    )


@functools.lru_cache
def _policy(*arguments: Any) -> Retry:
    """Return what the SDK's own session would repeat."""
    with _sdk_factory(*arguments) as session:  # type: ignore[misc]  # known to be there
        policy: Retry = session.get_adapter("https://").max_retries
    return policy


@contextmanager
def _leased(settings: OurRetries, policy: Retry) -> Iterator[requests.Session]:
    """Hand out a session for one call, and end the call when its time is up."""
    deadline = time.monotonic() + settings.call_timeout
    await_permit(settings.permit, settings.call_timeout)
    session, idle_since = _sessions.take() if settings.keep else (KeptSession(), 0.0)
    session.adapter.max_retries, session.adapter.idle_since = policy, idle_since
    with until(deadline):
        try:
            yield session
        finally:
            if settings.keep and session.is_clean:
                _sessions.give_back(session)
            else:
                session.close()


_sessions = Sessions(KeptSession)


def close_idle() -> None:
    """Close the connections that no call uses."""
    _sessions.close()
