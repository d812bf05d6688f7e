"""Which failures go round again, and when: Celery's retry options, applied per agent task."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from celery_agents.errors import AgentRetryError, TimedOutError

ErrorTypes = tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When an agent task that failed is tried again. Names and meanings are those of Celery's task options.

    Encord's own passing trouble (429, 5xx, the network) is retried always; of the agent's exceptions those that
    ``autoretry_for`` names and ``dont_autoretry_for`` does not.
    """

    autoretry_for: ErrorTypes = ()
    dont_autoretry_for: ErrorTypes = ()
    max_retries: int | None = 10  #: about a quarter of an hour of Encord being away; None: for ever
    retry_backoff: bool | int = (
        2  #: seconds before the first retry, doubled for each further one; True means 1
    )
    retry_backoff_max: float = 600  #: seconds
    retry_jitter: bool = (
        True  #: anything between 0 and the computed pause, so that retries do not come in herds
    )
    default_retry_delay: float = 180  #: seconds, where ``retry_backoff`` is False

    def asked_by(self, error: BaseException) -> RetryPolicy:
        """Return this policy as it is for an agent that has raised *error*: ``self.retry()`` may say otherwise."""
        asked = error.__cause__ if isinstance(error, TimedOutError) else error
        if not isinstance(asked, AgentRetryError):
            return self
        policy = replace(self, autoretry_for=(AgentRetryError,), dont_autoretry_for=())
        if asked.max_retries is not None:
            policy = replace(policy, max_retries=asked.max_retries)
        if asked.countdown is not None:
            policy = replace(policy, retry_backoff=False, default_retry_delay=asked.countdown)
        return policy

    def covers(self, error: BaseException, *, passes: bool) -> bool:
        """Return whether *error* is worth another try; *passes* says whether Encord's side of it does."""
        if isinstance(error, self.dont_autoretry_for):
            return False
        # An agent that was interrupted: Celery's users name what was raised in it.
        kinds = (error, error.__cause__) if isinstance(error, TimedOutError) else (error,)
        return passes or any(isinstance(each, self.autoretry_for) for each in kinds)

    def is_used_up(self, attempt: int) -> bool:
        """Return whether no retry is left after this *attempt*, counted from 1."""
        return self.max_retries is not None and attempt > self.max_retries

    def countdown(self, attempt: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after *attempt* (counted from 1); never less than the server asked for."""
        return max(self._pause(attempt), retry_after or 0.0)

    def _pause(self, attempt: int) -> float:
        if not self.retry_backoff:
            return self.default_retry_delay
        doubled = 2.0 ** min(attempt - 1, 60)  # 2.0 ** 1024 is no number any more
        longest = min(self.retry_backoff_max, int(self.retry_backoff) * doubled)
        return random.uniform(0, longest) if self.retry_jitter else longest  # noqa: S311  (no secret depends on it)
