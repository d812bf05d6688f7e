from __future__ import annotations

import pytest
from celery import states

from celery_agents.status import BY_ERROR, BY_STATE, FINAL, PROGRESS, Status, status_of

TABLE = {
    "PENDING": Status.UNKNOWN,
    "RECEIVED": Status.QUEUED,
    "STARTED": Status.RUNNING,
    "PROGRESS": Status.RUNNING,
    "RETRY": Status.RETRYING,
    "SUCCESS": Status.SUCCEEDED,
    "FAILURE": Status.FAILED,
    "REVOKED": Status.CANCELLED,
    "REJECTED": Status.FAILED,
    "IGNORED": Status.CANCELLED,
}


@pytest.mark.parametrize("state", sorted({*states.ALL_STATES, states.REJECTED, states.IGNORED, PROGRESS}))
def test_every_state_that_celery_has_has_a_status_of_its_own(state: str) -> None:
    assert status_of(state) is TABLE[state]
    assert state in BY_STATE


@pytest.mark.parametrize("state", sorted({*states.ALL_STATES, PROGRESS}))
def test_what_celery_calls_ready_is_final_and_nothing_else_is(state: str) -> None:
    assert status_of(state).is_final is (state in states.READY_STATES)


@pytest.mark.parametrize(
    ("state", "error", "status"),
    [
        ("FAILURE", "AgentTaskError", Status.FAILED),
        ("FAILURE", "WorkerLostError", Status.FAILED),
        ("FAILURE", "TimeLimitExceeded", Status.TIMED_OUT),
        ("FAILURE", "SoftTimeLimitExceeded", Status.TIMED_OUT),
        ("FAILURE", "TaskRevokedError", Status.CANCELLED),
        ("FAILURE", "TaskRevokedError: expired", Status.EXPIRED),
        ("REVOKED", "TaskRevokedError", Status.CANCELLED),
        ("REVOKED", "TaskRevokedError: expired", Status.EXPIRED),
        ("RETRY", "TimeLimitExceeded", Status.RETRYING),
    ],
)
def test_the_stored_exception_tells_more_than_the_state(state: str, error: str, status: Status) -> None:
    assert status_of(state, error=error) is status


def test_success_is_partial_where_something_failed() -> None:
    assert status_of("SUCCESS", failed=0) is Status.SUCCEEDED
    assert status_of("SUCCESS", failed=1) is Status.PARTIAL


def test_no_news_of_a_message_that_was_sent_means_that_it_waits() -> None:
    assert status_of("PENDING", is_known=True) is Status.QUEUED


def test_a_state_of_somebody_elses_is_running() -> None:
    assert status_of("UPLOADING") is Status.RUNNING


def test_every_status_can_be_reached() -> None:
    reached = {*BY_STATE.values(), *BY_ERROR.values(), status_of("SUCCESS", failed=1)}
    assert reached == set(Status)
    assert {status for status in Status if status.is_final} == FINAL
