"""The main job on every broker and result backend that is promised, for real."""

from __future__ import annotations

import pytest

from celery_agents import Outcome, Status
from tests import servers

from .conftest import DEADLINE, Site

REDIS = ("Redis", 6379, "redis://127.0.0.1:6379/5")
RABBITMQ = ("RabbitMQ", 5672, servers.RABBITMQ)
RPC = ("RabbitMQ", 5672, "rpc://")
POSTGRESQL = ("PostgreSQL", 5432, servers.POSTGRESQL)


@pytest.fixture(
    params=[(REDIS, REDIS), (RABBITMQ, RPC), (RABBITMQ, POSTGRESQL), (REDIS, POSTGRESQL)],
    ids=lambda pair: f"{pair[0][0]}-{pair[1][2].partition(':')[0]}",
)
def urls(request: pytest.FixtureRequest) -> tuple[str, str]:
    for name, port, _ in request.param:
        servers.require(name, port)
    broker, backend = request.param
    return broker[2], backend[2]


@pytest.mark.tasks(50)
def test_on_each_broker_and_backend(site: Site) -> None:
    site.start_worker("-c", "2")
    assert_the_job_is_done(site)


def assert_the_job_is_done(site: Site) -> None:
    group = site.runner.enqueue("Pre-label", batch_size=10)
    assert group.wait(timeout=DEADLINE) is Status.PARTIAL
    assert group.counts == {Outcome.PROCEEDED: 49, Outcome.FAILED: 1}
    assert set(site.sandbox.audit.moves().values()) == {1}
    assert len(site.sandbox.audit.moves()) == 49
