"""What Celery's states mean for a message of agent tasks: one table, from state to status."""

from __future__ import annotations

from enum import StrEnum

#: Celery state written by a running message, see ``StageTask``; Celery allows any name for a custom state.
PROGRESS = "PROGRESS"


class Status(StrEnum):
    """What became of a message, for people."""

    UNKNOWN = "UNKNOWN"  #: nobody has heard of it, or its result has expired
    QUEUED = "QUEUED"  #: sent, no worker has begun
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"  #: waits for its next attempt; what is decided is kept
    SUCCEEDED = "SUCCEEDED"  #: nothing FAILED
    PARTIAL = "PARTIAL"  #: something FAILED, something did not
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"  #: its ``expires`` passed before it ran
    TIMED_OUT = "TIMED_OUT"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether it stays so."""
        return self in FINAL


FINAL = frozenset(
    {Status.SUCCEEDED, Status.PARTIAL, Status.FAILED, Status.EXPIRED, Status.TIMED_OUT, Status.CANCELLED}
)

#: Celery state -> status where nothing more is known of the message.
BY_STATE: dict[str, Status] = {
    "PENDING": Status.UNKNOWN,
    "RECEIVED": Status.QUEUED,
    "STARTED": Status.RUNNING,
    PROGRESS: Status.RUNNING,
    "RETRY": Status.RETRYING,
    "SUCCESS": Status.SUCCEEDED,
    "FAILURE": Status.FAILED,
    "REVOKED": Status.CANCELLED,
    "REJECTED": Status.FAILED,
    "IGNORED": Status.CANCELLED,
}

#: (Celery state, name of the stored exception's class) -> status, where the exception tells more than the state.
#: ``TaskRevokedError('expired')`` is how Celery's worker stores a message whose ``expires`` has passed.
BY_ERROR: dict[tuple[str, str], Status] = {
    ("FAILURE", "TimeLimitExceeded"): Status.TIMED_OUT,
    ("FAILURE", "SoftTimeLimitExceeded"): Status.TIMED_OUT,
    ("FAILURE", "TaskRevokedError"): Status.CANCELLED,
    ("REVOKED", "TaskRevokedError: expired"): Status.EXPIRED,
    ("FAILURE", "TaskRevokedError: expired"): Status.EXPIRED,
    # The same for one of which earlier attempts had decided a part, see ``worker.request``.
    ("REVOKED", "CancelledMessageError: expired"): Status.EXPIRED,
}


def status_of(state: str, *, error: str | None = None, failed: int = 0, is_known: bool = False) -> Status:
    """Return the status of a message.

    Args:
        state: Celery's state. A state that is not Celery's nor ours is a custom one of the user's: it is running.
        error: Name of the stored exception's class, with ``: expired`` behind it for a message that expired.
        failed: How many of its agent tasks FAILED.
        is_known: Whether somebody knows that it was sent, so that PENDING means "waiting" and not "never heard of".
    """
    if state == "PENDING" and is_known:
        return Status.QUEUED
    if state == "SUCCESS" and failed:
        return Status.PARTIAL
    if error is not None and (state, error) in BY_ERROR:
        return BY_ERROR[state, error]
    return BY_STATE.get(state, Status.RUNNING)
