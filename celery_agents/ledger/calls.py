"""What can be asked of Redis: one typed call for each script in ``scripts``. Times are whole milliseconds."""

from __future__ import annotations

from celery_agents.ledger.keys import Key
from celery_agents.ledger.scripts import Call, Packed


class OnClaims(Call):
    """What is about the claims of a stage, see ``claims.lua``, and what their entries lead to, see ``records.lua``."""

    holders: Key
    queued: Key
    running: Key
    sizes: Key
    batches: Key
    outcomes: Key
    outcome_times: Key
    stage: str


class Claim(OnClaims):
    """``rest`` are pairs of message id and packed agent tasks."""

    cancelled: Key
    ttl: int
    is_forced: bool
    rest: tuple[str, ...]


class Confirm(OnClaims):
    """``rest`` are message ids."""

    ttl: int
    rest: tuple[str, ...]


class TakeOver(OnClaims):
    """Begin a delivery."""

    message: Key
    cancelled: Key
    pause: Key
    crashes: Key
    message_id: str
    ttl: int
    crashes_kept: int
    longest: int
    task_uuids: Packed


class NoteRunning(Call):
    """``task_uuid`` is empty between two agent tasks."""

    holders: Key
    sizes: Key
    message: Key
    cancelled: Key
    pause: Key
    message_id: str
    token: str
    task_uuid: str


class NoteDeath(Call):
    """``how`` is a sentence."""

    message: Key
    how: str


class Hold(OnClaims):
    """Check and renew before a commit."""

    message: Key
    cancelled: Key
    pause: Key
    message_id: str
    token: str
    ttl: int
    task_uuids: Packed


class Settle(OnClaims):
    """``singles`` and ``rest`` are what ``records`` and ``alike`` give of outcomes."""

    message: Key
    crashes: Key
    failures: Key
    failure_times: Key
    stages: Key
    holders_prefix: str
    message_id: str
    token: str
    is_last: bool
    outcomes_kept: int
    most_outcomes: int
    failures_kept: int
    most_failures: int
    singles: str
    rest: tuple[str, ...]


class Release(OnClaims):
    """``message_id`` is empty for any; ``task_uuids`` may be empty for all of a message."""

    message_id: str
    is_queued_only: bool
    task_uuids: Packed


class InFlight(OnClaims):
    """Count claims."""


class WhoHolds(OnClaims):
    """Read claims."""

    task_uuids: Packed


class LookUp(Call):
    """Read outcomes."""

    outcomes: Key
    outcome_times: Key
    stages: Key
    holders_prefix: str
    kept: int
    longest: int
    uuids: Packed


class Search(Call):
    """Read a page of *size* outcomes, and find some by their data hashes."""

    outcomes: Key
    outcome_times: Key
    holders_prefix: str
    kept: int
    longest: int
    data_hashes: Packed
    cursor: str
    size: int


class FailuresOf(Call):
    """Read failures."""

    store: Key
    times: Key
    stages: Key
    kept: int
    longest: int
    uuids: Packed


class ListFailures(Call):
    """``stage`` and ``error_type`` are empty for any."""

    store: Key
    times: Key
    kept: int
    most: int
    longest: int
    stage: str
    error_type: str
    since: int
    skipped: int
    wanted: int


class Discard(Call):
    """Forget failures and crashes."""

    store: Key
    times: Key
    crashes: Key
    stages: Key
    task_uuids: Packed


class Pause(Call):
    """Pause a stage."""

    pause: Key
    ttl: int


class Permit(Call):
    """Ask to call Encord. Times are in microseconds."""

    next_call: Key
    apart: int
    longest: int


class NotePace(Call):
    """Note how many microseconds a number of agent tasks took."""

    pace: Key
    took: int
    number: int
    ttl: int


class Cancel(Call):
    """``rest`` are message ids."""

    cancelled: Key
    ttl: int
    most: int
    rest: tuple[str, ...]


class IsCancelled(Call):
    """Read the mark."""

    cancelled: Key
    message_id: str


class LockSweep(Call):
    """Take or renew the lock on sweeping a stage."""

    lock: Key
    holder: str
    ttl: int


class UnlockSweep(Call):
    """Give it back."""

    lock: Key
    holder: str


class AskSweep(Call):
    """Find or set the message that shall sweep a stage; a message sent less than *trusted* ago is on its way."""

    asked: Key
    message_id: str
    ttl: int
    trusted: int


class ConfirmSweep(Call):
    """Note that it was sent."""

    asked: Key
    message_id: str
    ttl: int


class Listen(Call):
    """Note that a worker listens."""

    listeners: Key
    ttl: int
    worker: str


class CountListeners(Call):
    """Count who listens."""

    listeners: Key


class Withdraw(OnClaims):
    """Take a message back."""

    cancelled: Key
    message_id: str
    ttl: int
