"""Permits to call Encord, where there is a limit: the seam by which calls wait for what somebody else grants.

A call that would wait for longer than it may is refused, as Encord itself refuses what comes too fast, and its message
goes round again without holding a worker. Whatever has begun waits longer than what has not: labels do not travel in
messages, so agents whose labels cannot be saved run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from encord.exceptions import RateLimitExceededError

#: Waits so many seconds for a permit, at most; returns 0, or after how many seconds to ask again.
Permit: TypeAlias = Callable[[float], float]

#: What part of the time that a call may take it may wait for its permit.
SHARE_FOR_WAITING = 0.5
#: Seconds that the first calls for a batch wait for a permit: nothing is lost where they are refused.
BEFORE_WORK = 3.0

_patience: ContextVar[float] = ContextVar("celery_agents_patience", default=float("inf"))


class NoPermitError(RateLimitExceededError):
    """Raised instead of calling Encord, where the rate limit of this project's own allows no call soon."""

    def __init__(self, seconds: float) -> None:
        super().__init__(message=f"The rate limit (agents_rate_limit) allows no call for {seconds:.1f} s.")
        self.retry_after: float = seconds  # type: ignore[assignment]  # the SDK knows whole seconds only


@contextmanager
def waiting_at_most(seconds: float) -> Iterator[None]:
    """Let calls to Encord in the ``with`` block wait so long for a permit at most."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def await_permit(permit: Permit | None, call_timeout: float) -> None:
    """Wait until a call may be made that may take *call_timeout* seconds in all.

    Raises:
        NoPermitError: That would take too long.
    """
    if permit is None:
        return
    seconds = permit(min(_patience.get(), call_timeout * SHARE_FOR_WAITING))
    if seconds:
        raise NoPermitError(seconds)
