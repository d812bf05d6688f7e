"""A process of a worker that stops does not wait for being replaced; one that ends for another reason does."""

from __future__ import annotations

import time

import pytest
from billiard import pool

from celery_agents import stopping
from celery_agents.worker import leaving


@pytest.mark.parametrize("is_stopping", [True, False])
def test_only_the_processes_of_a_worker_that_stops_hurry(
    monkeypatch: pytest.MonkeyPatch, is_stopping: bool
) -> None:
    monkeypatch.setattr(pool, "time", time)  # put back afterwards
    monkeypatch.setattr(stopping, "_memory", bytearray([is_stopping]))
    leaving.on_worker_process_shutdown(pid=1, exitcode=0)
    assert (pool.time is time) != is_stopping
    if is_stopping:
        pool.time.sleep(3600)


def test_billiard_waits_in_the_way_that_is_taken_from_it() -> None:
    """Where it waits otherwise one day, this module is of no use any more."""
    assert "time" in pool.Worker._do_exit.__code__.co_names
    assert pool.time is time
