"""The table of states, statuses and progress, without a backend."""

from __future__ import annotations

import json
from typing import Any

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import TaskRevokedError

from celery_agents.errors import AgentsError, AgentTaskError, ResultNotReadyError
from celery_agents.messages import Outcome, ProgressReport, TaskCompletionResult, TaskError, TaskOutcome
from celery_agents.snapshots import snapshot_of
from celery_agents.status import Status
from tests.results.made import completion, failure, outcomes, retrying

REPORT = ProgressReport(done=4, failed=1, total=9, text="frames").model_dump(mode="json")
SEEN = ProgressReport(done=4, failed=1, total=9)


def stored(state: str, result: Any = None) -> dict[str, Any]:
    return {"status": state, "result": result, "traceback": None}


@pytest.mark.parametrize(
    ("meta", "total", "seen", "status", "progress"),
    [
        (stored("PENDING"), None, None, Status.UNKNOWN, None),
        (stored("PENDING"), 9, None, Status.QUEUED, (0, 0, 9)),
        (stored("RECEIVED"), 9, None, Status.QUEUED, (0, 0, 9)),
        (stored("RECEIVED"), None, None, Status.QUEUED, None),
        (stored("STARTED", {"pid": 1, "hostname": "a"}), 9, None, Status.RUNNING, (0, 0, 9)),
        (stored("STARTED", {"pid": 1, "hostname": "a"}), 9, SEEN, Status.RUNNING, (4, 1, 9)),
        (stored("PROGRESS", REPORT), None, None, Status.RUNNING, (4, 1, 9)),
        (stored("PROGRESS", "garbage"), 9, None, Status.RUNNING, (0, 0, 9)),
        (stored("UPLOADING", {"done": 8}), 9, SEEN, Status.RUNNING, (4, 1, 9)),
        (stored("RETRY", retrying(proceeded=2, failed=1)), 9, None, Status.RETRYING, (3, 1, 9)),
        (stored("RETRY", retrying(proceeded=2, failed=1)), None, SEEN, Status.RETRYING, (3, 1, 9)),
        (stored("RETRY", retrying(proceeded=2, failed=1)), None, None, Status.RETRYING, (3, 1, 0)),
        (stored("RETRY", ConnectionError("down")), 9, SEEN, Status.RETRYING, (4, 1, 9)),
        (stored("SUCCESS", completion(proceeded=8, gone=1)), None, None, Status.SUCCEEDED, (9, 0, 9)),
        (stored("SUCCESS", completion(proceeded=6, failed=3)), 9, SEEN, Status.PARTIAL, (9, 3, 9)),
        (stored("FAILURE", failure(failed=9)), None, None, Status.FAILED, (9, 9, 9)),
        (stored("FAILURE", WorkerLostError("signal 9")), 9, SEEN, Status.FAILED, (4, 1, 9)),
        (stored("FAILURE", WorkerLostError("signal 9")), None, None, Status.FAILED, None),
        (stored("FAILURE", TimeLimitExceeded(300)), 9, None, Status.TIMED_OUT, (0, 0, 9)),
        (stored("REVOKED", TaskRevokedError("expired")), 9, None, Status.EXPIRED, (0, 0, 9)),
        (stored("REVOKED", TaskRevokedError("terminated")), 9, SEEN, Status.CANCELLED, (4, 1, 9)),
        (stored("IGNORED"), 9, None, Status.CANCELLED, (0, 0, 9)),
    ],
)
def test_status_and_progress_of_every_state(
    meta: dict[str, Any],
    total: int | None,
    seen: ProgressReport | None,
    status: Status,
    progress: tuple[int, ...] | None,
) -> None:
    snapshot = snapshot_of("m", meta, total=total, seen=seen)

    assert snapshot.status is status
    found = snapshot.progress
    assert (None if found is None else (found.done, found.failed, found.total)) == progress
    assert snapshot.is_final is status.is_final
    assert json.loads(json.dumps(snapshot.as_dict()))["status"] == status.value


def test_progress_keeps_its_text() -> None:
    snapshot = snapshot_of("m", stored("PROGRESS", REPORT))
    assert snapshot.progress is not None
    assert snapshot.progress.text == "frames"


@pytest.mark.parametrize("state", ["PENDING", "RECEIVED", "STARTED", "PROGRESS"])
def test_outcomes_that_are_not_there_yet_are_never_an_empty_list(state: str) -> None:
    snapshot = snapshot_of("m", stored(state), total=3)

    with pytest.raises(ResultNotReadyError, match="no agent task has an outcome yet"):
        _ = snapshot.outcomes
    with pytest.raises(ResultNotReadyError, match="has no result yet"):
        _ = snapshot.result
    assert snapshot.errors == {}


def test_a_retrying_message_shows_what_is_decided_but_has_no_result() -> None:
    snapshot = snapshot_of("m", stored("RETRY", retrying(proceeded=2, failed=1)), total=5)

    assert [each.outcome for each in snapshot.outcomes] == [Outcome.PROCEEDED] * 2 + [Outcome.FAILED]
    assert snapshot.detail == "2 of 5 agent tasks go round again"
    assert len(snapshot.errors) == 1
    with pytest.raises(ResultNotReadyError):
        _ = snapshot.result


def test_a_retrying_message_with_nothing_decided_has_no_outcomes_yet() -> None:
    with pytest.raises(ResultNotReadyError, match="RETRYING"):
        _ = snapshot_of("m", stored("RETRY", retrying())).outcomes


def test_a_message_that_died_has_no_outcomes_for_good_and_says_why() -> None:
    snapshot = snapshot_of("m", stored("FAILURE", WorkerLostError("signal 9 (SIGKILL)")), total=3)

    with pytest.raises(ResultNotReadyError, match=r"FAILED without an outcome .* WorkerLostError: signal 9"):
        _ = snapshot.outcomes
    with pytest.raises(WorkerLostError):
        _ = snapshot.result
    assert [(key, error.type) for key, error in snapshot.errors.items()] == [
        ("m", "billiard.exceptions.WorkerLostError")
    ]


def test_a_failed_message_gives_its_outcomes_and_raises_its_own_error() -> None:
    snapshot = snapshot_of("m", stored("FAILURE", failure(failed=2)))

    assert len(snapshot.outcomes) == 2
    assert set(snapshot.errors) == {each.task_uuid for each in snapshot.outcomes}
    with pytest.raises(AgentTaskError, match="every agent task failed") as raised:
        _ = snapshot.result
    assert len(raised.value.result.outcomes) == 2


def test_a_failed_message_whose_completion_was_cut_off_still_tells_its_sentence() -> None:
    snapshot = snapshot_of("m", stored("FAILURE", AgentTaskError("all failed", '{"outcomes": [')))

    assert snapshot.detail == "all failed"
    assert [error.detail for error in snapshot.errors.values()] == ["all failed"]


def test_unreadable_specs_have_errors_too() -> None:
    unreadable = TaskOutcome(outcome=Outcome.FAILED, error=TaskError(type="SpecError", detail="not JSON"))
    both = TaskCompletionResult.from_outcomes([unreadable, *outcomes(failed=1), unreadable], None)

    errors = snapshot_of("m", stored("SUCCESS", both.model_dump_json())).errors

    assert list(errors) == ["m#0", both.outcomes[1].task_uuid, "m#2"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (42, "it is of type int"),
        (None, "it is of type NoneType"),
        ({"outcomes": []}, "it is of type dict"),
        ("hello", "it is other text"),
        ('{"outcomes": [{"outcome": "EATEN"}]}', "it is other text"),
        ("{}", "it has no outcomes"),
        ('{"success": true, "task_uuid": null}', "it has no outcomes"),
    ],
)
def test_a_result_that_is_not_ours_is_one_sentence(value: object, why: str) -> None:
    snapshot = snapshot_of("m", stored("SUCCESS", value), total=3)

    assert (snapshot.state, snapshot.status) == ("SUCCESS", Status.FAILED)
    with pytest.raises(AgentsError) as raised:
        _ = snapshot.result
    assert str(raised.value) == (
        f"What is stored for message m is not a result of celery_agents ({why}); is it the id of another task?"
    )
    assert [error.detail for error in snapshot.errors.values()] == [str(raised.value)]


def test_no_secret_of_a_stored_exception_is_shown() -> None:
    meta = stored("FAILURE", ConnectionError("amqp://me:s3cret@broker is down"))
    meta["traceback"] = "File x\n  connect('amqp://me:s3cret@broker')"

    shown = json.dumps(snapshot_of("m", meta).as_dict())

    assert "s3cret" not in shown
    assert "connect(" in shown
