"""What becomes of a message whose worker works on, and of one whose worker is dead."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.worker.conftest import wait_until

from .conftest import Stand

TIMEOUT = 2
ALONE = ("--without-mingle", "--without-gossip")  #: a worker that starts a second sooner


def held_for(there: Stand, seconds: float, *, since: float) -> bool:
    return bool(there.unacked()) and time.monotonic() - since > seconds


def is_given_away(there: Stand) -> bool:
    """Give back what is overdue, as kombu does in each worker now and then; return whether the message runs again."""
    with there.app.connection_for_read() as connection:
        connection.default_channel.qos.restore_visible(interval=1)
    return there.begun()["held"] > 1


@pytest.mark.slow
@pytest.mark.parametrize(("renewal", "runs_once"), [("on", True), ("off", False)])
def test_renewal_is_what_keeps_a_second_worker_from_running_it(
    make_stand: Callable[..., Stand], renewal: str, runs_once: bool
) -> None:
    there = make_stand(TIMEOUT=str(TIMEOUT), RENEWAL=renewal)
    there.start_worker("-c", "1", *ALONE)
    there.app.tasks["tests.visibility.tasks_app.note_until_released"].delay("held")
    wait_until("it runs", lambda: there.begun()["held"])
    begun = time.monotonic()
    wait_until("the timeout is over", lambda: held_for(there, TIMEOUT + 0.5, since=begun))
    there.start_worker("-c", "1", *ALONE)
    since = time.monotonic()
    wait_until(
        "it was given away, or not for two timeouts",
        lambda: is_given_away(there) or held_for(there, 2 * TIMEOUT, since=since),
    )
    there.release()
    wait_until("all that runs is done", lambda: there.done() == there.begun())
    assert (there.begun()["held"] == 1) is runs_once
    assert ("Held messages are renewed every" in there.log().read_text()) is (renewal == "on")


def test_a_killed_workers_messages_are_back_when_the_timeout_is_over(
    make_stand: Callable[..., Stand],
) -> None:
    there = make_stand(TIMEOUT=str(TIMEOUT))
    killed = there.start_worker("-c", "1", *ALONE)
    tasks = there.app.tasks
    tasks["tests.visibility.tasks_app.note_until_released"].delay("running")
    tasks["tests.visibility.tasks_app.note"].delay("prefetched")
    wait_until("it runs", lambda: there.begun()["running"])
    there.start_worker("-P", "threads", "-c", "2", *ALONE)
    os.killpg(killed.pid, signal.SIGKILL)
    there.release()
    # Left to Celery's defaults they would be away for longer than is waited here.
    wait_until("all are done", lambda: there.done().keys() == {"running", "prefetched"})
    assert there.begun()["running"] == 2
    wait_until("nothing is unacknowledged", there.nothing_is_unacked)


def test_renewal_goes_on_while_a_worker_that_was_told_to_stop_finishes(
    make_stand: Callable[..., Stand],
) -> None:
    there = make_stand(TIMEOUT=str(TIMEOUT))
    stopping = there.start_worker("-c", "1", *ALONE)
    there.app.tasks["tests.visibility.tasks_app.note_until_released"].delay("running")
    wait_until("it runs", lambda: there.begun()["running"])
    there.start_worker("-P", "threads", "-c", "1", *ALONE)
    os.kill(stopping.pid, signal.SIGTERM)
    told = time.monotonic()
    wait_until("it has gone on for two timeouts", lambda: held_for(there, 2 * TIMEOUT, since=told))
    there.release()
    assert stopping.wait(timeout=30) == 0
    assert there.begun()["running"] == there.done()["running"] == 1
    assert there.nothing_is_unacked()
