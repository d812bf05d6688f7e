"""Four processes enqueue the same stage at the same time: each agent task is in exactly one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from queue import Empty

import pytest

from tests.worker.conftest import DEADLINE, ROOT, Site

TASKS, BATCH, PRODUCERS = 300, 7, 4

pytestmark = [pytest.mark.app_module("tests.chaos.app"), pytest.mark.tasks(TASKS)]

#: All wait for the last, so that they list the same pages and claim at the same time.
PRODUCER = f"""
import sys
from tests.chaos.app import pre_label, runner
pre_label.agent_stage
print("here", flush=True)
sys.stdin.readline()
runner.enqueue("Pre-label", batch_size={BATCH})
"""


def start_producer() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRODUCER],
        cwd=ROOT,
        env=os.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def sent(site: Site) -> list[str]:
    """Take all messages out of the queue; return which agent tasks they carry."""
    specs: list[str] = []
    with site.app.connection_for_read() as connection:
        queue = connection.SimpleQueue(site.app.conf.task_default_queue, no_ack=True)
        try:
            while True:
                specs += queue.get(timeout=1).payload[0][0]
        except Empty:
            queue.close()
    return [json.loads(spec)["uuid"] for spec in specs]


@pytest.mark.parametrize("servers", ["redis", "shared rabbitmq"], indirect=True)
def test_each_agent_task_is_in_one_message(site: Site) -> None:
    with ExitStack() as stack:
        producers = [stack.enter_context(start_producer()) for _ in range(PRODUCERS)]
        for producer in producers:
            assert producer.stdout is not None
            assert producer.stdout.readline() == "here\n"
        for producer in producers:
            assert producer.stdin is not None
            producer.stdin.write("go\n")
            producer.stdin.flush()
        assert [producer.wait(DEADLINE) for producer in producers] == [0] * PRODUCERS
    number = Counter(sent(site))
    assert Counter(number.values()) == {1: TASKS}
