"""On brokers that know when a worker dies, nothing is done."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from celery import Celery

from celery_agents.worker import visibility
from tests import servers
from tests.worker.conftest import wait_until

from .conftest import Stand


@pytest.mark.parametrize("url", ["memory://", "amqp://guest@localhost//", "filesystem://"])
def test_no_option_is_set(url: str) -> None:
    app = Celery(broker=url)
    assert not visibility.prepare(app)
    assert app.conf.broker_transport_options == {}


def test_a_worker_on_rabbitmq_starts_nothing(make_stand: Callable[..., Stand]) -> None:
    servers.require("RabbitMQ", 5672)
    there = make_stand(BROKER_URL=servers.RABBITMQ)
    there.start_worker("-c", "1")
    there.app.tasks["tests.visibility.tasks_app.note"].delay("one")
    wait_until("it is done", lambda: there.done()["one"])
    servers.delete_queue(there.app)
    assert "Held messages" not in there.log().read_text()
