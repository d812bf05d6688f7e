"""Tell trouble that passes from trouble that stays, for what the Encord SDK raises.

The SDK's exceptions carry no HTTP status, and its class alone does not tell: a passing 503 is ``UnknownException`` on
the v2 API, ``GenericServerError`` or ``RequestException`` on the legacy one, and so are some permanent refusals. The
table below looks at class and message; the facts are those of encord 0.1.211.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from encord.exceptions import (
    AuthenticationError,
    EncordException,
    GenericServerError,
    RateLimitExceededError,
    RequestException,
    SshKeyNotFound,
    UnknownException,
)

from celery_agents.errors import DownloadError, LedgerError
from celery_agents.gateway.permits import NoPermitError


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an exception means for whoever made the call."""

    transient: bool  #: trying again later may help
    is_rate_limit: bool = False  #: it was told to be left alone
    retry_after: float | None = None  #: seconds that the server asked for
    had_effect: bool | None = (
        False  #: whether a write may have taken place: no, or None for "cannot be known"
    )
    is_attempt: bool = True  #: whether Encord was asked at all


PERMANENT = Trouble(transient=False)
_PASSING = Trouble(transient=True)


def _rate_limited(error: EncordException) -> Trouble:
    retry_after = getattr(error, "retry_after", None)
    return Trouble(
        transient=True,
        is_rate_limit=True,
        retry_after=None if retry_after is None else float(retry_after),
        is_attempt=not isinstance(error, NoPermitError),
    )


def _unknown(error: EncordException) -> Trouble:
    # A 422 lists the fields that are wrong under "detail"; a 5xx has a text or nothing.
    return PERMANENT if not isinstance(cast("object", error.message), str) else _PASSING


def _generic(error: EncordException) -> Trouble:
    # The legacy API names what it refuses (a list with an error name); a 5xx from in front of it names nothing.
    return _PASSING if "of type `None`" in str(error.message) else PERMANENT


_TABLE: tuple[tuple[type[EncordException], Callable[[EncordException], Trouble]], ...] = (
    (RateLimitExceededError, _rate_limited),
    (RequestException, lambda _: _PASSING),  # network trouble of any kind, and answers that are not JSON
    (UnknownException, _unknown),
    (GenericServerError, _generic),
)

#: The key or its rights are at fault: what is refused to one agent task will be refused to all.
CREDENTIAL_ERRORS = (AuthenticationError, SshKeyNotFound)


def classify(error: BaseException) -> Trouble:
    """Return what *error* means; anything that is not known to pass is permanent."""
    if isinstance(error, DownloadError):
        return Trouble(transient=error.transient)
    if isinstance(error, LedgerError):
        return _PASSING
    for kind, judge in _TABLE:
        if isinstance(error, kind):
            return judge(error)
    return PERMANENT


def is_outage(error: BaseException) -> bool:
    """Whether *error* is surely about no item of a request: no answer, too many requests, or a key not accepted."""
    return isinstance(error, (RateLimitExceededError, RequestException, *CREDENTIAL_ERRORS))


def is_about_everything(error: BaseException) -> bool:
    """Whether *error* is probably about no item of a request: an outage, or what a server in trouble answers."""
    return is_outage(error) or classify(error).transient


__all__ = [
    "CREDENTIAL_ERRORS",
    "EncordException",
    "Trouble",
    "classify",
    "is_about_everything",
    "is_outage",
]
