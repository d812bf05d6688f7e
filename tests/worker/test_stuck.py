"""Workers that are stuck for real notice it, and reconnect or exit; workers that only look so are left alone.

The workers run at the same time, each with a queue and a database of its own. What happens to one is a function here, and
what is true of it afterwards a test.
"""

from __future__ import annotations

import contextlib
import importlib
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from celery_agents.sandbox import SandboxServer
from celery_agents.worker.lookout import LOOKS, SHORTEST_GRACE
from tests import servers
from tests.visibility.conftest import Stand

from .conftest import DEADLINE, wait_until
from .swallowing import SwallowingProxy

#: Seconds; long enough for a loaded machine to get a message from the broker to an idle worker.
STUCK_AFTER = 2.0
NOTE = "tests.visibility.tasks_app.note"
NOTE_UNTIL_RELEASED = "tests.visibility.tasks_app.note_until_released"


@contextmanager
def stand(logs: Path, url: str, record_url: str) -> Iterator[Stand]:
    env = {"BROKER_URL": url, "RECORD_URL": record_url, "QUEUE": f"stuck-{uuid.uuid4().hex[:8]}"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (env | {"STUCK_AFTER": str(STUCK_AFTER)}).items():
            patch.setenv(name, value)
        for module in ("tests.visibility.tasks_app", "tests.worker.stuck_app"):
            sys.modules.pop(module, None)  # they read the environment when they are imported
        app_module = importlib.import_module("tests.worker.stuck_app")
    logs.mkdir(exist_ok=True)
    made = Stand(app_module, cast("SandboxServer", None), {**env, "STUCK_AFTER": str(STUCK_AFTER)}, logs)
    made.record = Redis.from_url(record_url, decode_responses=True)
    try:
        yield made
    finally:
        made.stop()
        servers.delete_queue(made.app)
        delete_control_exchanges(made)
        made.app.close()
        made.record.close()


def delete_control_exchanges(there: Stand) -> None:
    with there.app.connection_for_write() as connection:
        for exchange in (f"{there.queue}.pidbox", f"reply.{there.queue}.pidbox"):
            connection.default_channel.exchange_delete(exchange)


def send(there: Stand, *names: str, task: str = NOTE, **options: Any) -> None:
    for name in names:
        there.app.tasks[task].apply_async([name], **options)


def run_until_released(there: Stand, name: str = "running") -> None:
    send(there, name, task=NOTE_UNTIL_RELEASED)
    wait_until(f"{name} has begun", lambda: there.begun()[name])


def tell(there: Stand, command: str, **arguments: Any) -> Any:
    """What the worker answers to a control command."""
    [reply] = there.app.control.broadcast(command, arguments, reply=True, timeout=DEADLINE, limit=1)
    return reply[there.name_of()]


def sabotage(there: Stand, command: str) -> None:
    assert tell(there, command) == "ok"


def health(there: Stand, number: int = 0) -> dict[str, Any]:
    """What the n-th worker answers, nothing while it is making a connection."""
    name = there.name_of(number)
    replies = there.app.control.broadcast("agents_health", reply=True, timeout=1, limit=1, destination=[name])
    return cast("dict[str, Any]", replies[0][name]) if replies else {}


def be_looked_at(there: Stand, number: int = 0) -> None:
    """Wait for more looks at a worker than make a stuck one."""
    before = wait_until("it answers", lambda: health(there, number))["looks"]
    wait_until("it was looked at", lambda: health(there, number).get("looks", 0) > before + LOOKS + 3)


# ----------------------------------------------------------------------------------------------------- what happens


def lose_the_consumer(there: Stand) -> None:
    there.start_worker("-P", "prefork", "-c", "2")
    run_until_released(there)
    sabotage(there, "lose_consumer")
    send(there, "waiting")
    wait_until("it reconnects", lambda: "It reconnects." in there.log().read_text())
    # Celery 5.6 gives it to the process that is busy; with 5.7 it would run at once.
    wait_until("it fetches", lambda: not there.record.exists(there.queue))
    there.release()
    wait_until("all is done", lambda: there.done().total() == 2)
    wait_until("all is acknowledged", there.nothing_is_unacked)
    send(there, "later")
    wait_until("it goes on", lambda: there.done()["later"])
    # When a connection is lost that nobody gave up, what runs is to be stopped, as before.
    settings = tell(there, "conf", with_defaults=True)
    assert settings["worker_cancel_long_running_tasks_on_connection_loss"] is True
    assert settings["worker_enable_prefetch_count_reduction"] is True
    assert tell(there, "keeps_what_runs") is False


def lose_acknowledgements(there: Stand) -> None:
    there.start_worker("-P", "threads", "-c", "2")
    run_until_released(there)
    sabotage(there, "lose_acknowledgements")
    send(there, "waiting")
    wait_until("it fetches", lambda: there.done()["on its way"] and there.done()["waiting"])
    # What runs since before counts: there is room for one beside it.
    run_until_released(there, "running too")
    send(there, "after them")
    be_looked_at(there)
    assert there.record.llen(there.queue) == 1
    there.release()
    wait_until("all is done", lambda: there.done().total() == 5)
    wait_until("all is acknowledged", there.nothing_is_unacked)


def lose_a_connection_that_stays_open(there: Stand) -> None:
    port = int(there.record.connection_pool.connection_kwargs["port"])
    proxy = SwallowingProxy(port)
    url = str(there.app.conf.broker_url).replace(str(port), str(proxy.port))
    there.start_worker("-P", "threads", "-c", "1", BROKER_URL=url)
    send(there, "before")
    wait_until("it fetches", lambda: there.done()["before"])
    proxy.swallow()
    time.sleep(1.5)  # The server gives the next message to whoever waits, which it does for a second.
    send(there, "waiting")
    wait_until("it fetches again", lambda: there.done()["waiting"])
    proxy.close()


def lose_every_consumer(there: Stand) -> None:
    there.env["SABOTAGE"] = "yes"
    worker = there.start_worker("-P", "prefork", "-c", "1")
    send(there, "waiting")
    wait_until("it knows", lambda: health(there).get("is_stuck"))
    worker.wait(DEADLINE)


def lose_every_consumer_at_work(there: Stand) -> None:
    there.env["SABOTAGE"] = "later"
    worker = there.start_worker("-P", "prefork", "-c", "2")
    run_until_released(there)
    sabotage(there, "lose_consumer")
    send(there, "waiting")
    wait_until("it gives up", lambda: "does not help" in there.log().read_text())
    time.sleep(1.5 * SHORTEST_GRACE)  # longer than it has where nothing runs
    assert worker.poll() is None
    there.release()
    worker.wait(DEADLINE)


def hang(there: Stand) -> None:
    worker = there.start_worker("-P", "threads", "-c", "1")
    there.app.control.broadcast("hang")
    # The first one may be on its way to it already, the second one has to wait.
    send(there, "swallowed", "waiting")
    worker.wait(DEADLINE)


def be_busy_paused_and_idle(there: Stand) -> None:
    there.start_worker("-P", "prefork", "-c", "1")
    run_until_released(there)
    send(there, "waiting")
    be_looked_at(there)
    there.app.control.cancel_consumer(there.queue, reply=True)
    there.release()
    wait_until("nothing runs any more", lambda: there.done()["running"])
    assert there.record.llen(there.queue) == 1
    be_looked_at(there)
    there.app.control.add_consumer(there.queue, reply=True)
    wait_until("it goes on", lambda: there.done()["waiting"])
    be_looked_at(there)


def be_busy_alone(there: Stand) -> None:
    """The solo pool reads nothing while it works, although it may prefetch more."""
    there.start_worker("-P", "solo", MULTIPLIER="4")
    run_until_released(there)
    send(there, *"abcdef")
    time.sleep(3 * STUCK_AFTER)  # It cannot be asked.
    there.release()
    wait_until("all is done", lambda: there.done().total() == 7)


def hold_what_is_not_due(there: Stand) -> None:
    there.start_worker("-P", "threads", "-c", "1")
    there.app.control.rate_limit(NOTE, "10/m", reply=True)
    send(there, "due later", countdown=6 * STUCK_AFTER)
    send(there, "first", "held back", "waiting")
    wait_until("one is held back", lambda: there.done()["first"] and there.record.llen(there.queue) == 1)
    be_looked_at(there)


def lose_consumers_on_rabbitmq(there: Stand) -> None:
    there.start_worker("-P", "threads", "-c", "2")
    run_until_released(there)
    sabotage(there, "lose_consumer")
    send(there, "beside it")
    wait_until("it fetches beside what runs", lambda: there.done()["beside it"])
    there.release()
    wait_until("nothing runs any more", lambda: there.done()["running"])
    sabotage(there, "lose_consumer")
    send(there, "later")
    wait_until("it fetches again", lambda: there.done()["later"])


def wait_for_their_turn_on_rabbitmq(there: Stand) -> None:
    """Of two workers one gets all messages, although the other is idle."""
    there.env["SINGLE_CONSUMER"] = "yes"
    there.app.conf.task_queues = [there.module.single_consumer_queue(there.queue)]
    there.start_worker("-P", "threads", "-c", "1")
    run_until_released(there)
    send(there, "waiting")
    there.start_worker("-P", "threads", "-c", "1")
    be_looked_at(there, 1)
    there.release()
    wait_until("all is done", lambda: there.done().total() == 2)


ON_RABBITMQ = (lose_consumers_on_rabbitmq, wait_for_their_turn_on_rabbitmq)
SCENARIOS: tuple[Callable[[Stand], None], ...] = (
    lose_the_consumer,
    lose_acknowledgements,
    lose_a_connection_that_stays_open,
    lose_every_consumer,
    lose_every_consumer_at_work,
    hang,
    be_busy_paused_and_idle,
    be_busy_alone,
    hold_what_is_not_due,
)


def rabbitmq_runs() -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", 5672), timeout=2).close()
        return True
    return False


@pytest.fixture(scope="module")
def stands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stand]]:
    """What became of each worker, by the name of what happened to it."""
    scenarios = (*SCENARIOS, *(ON_RABBITMQ if rabbitmq_runs() else ()))
    with servers.new_valkey(databases=len(scenarios)) as server, ExitStack() as stack:
        made = {}
        for number, scenario in enumerate(scenarios):
            own = f"redis://127.0.0.1:{server.port}/{number}"
            url = servers.RABBITMQ if scenario in ON_RABBITMQ else own
            made[scenario.__name__] = stack.enter_context(stand(tmp_path_factory.mktemp("stuck"), url, own))
        with ThreadPoolExecutor(len(scenarios)) as threads:
            list(threads.map(lambda scenario: scenario(made[scenario.__name__]), scenarios))
        yield made


# ------------------------------------------------------------------------------------------------- what is true then


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lose_the_consumer", "lose_acknowledgements"])
def test_it_reconnects_and_what_runs_goes_on(stands: dict[str, Stand], name: str) -> None:
    there = stands[name]
    log = there.log().read_text()
    assert there.workers[0].poll() is None
    assert there.begun() == there.done()
    assert set(there.done().values()) == {1}
    assert f"in queue '{there.queue}'). It reconnects." in log
    assert "Terminating" not in log
    # What came by the connection when that was given up was not begun, but put back.
    assert "received" not in log.partition("It reconnects.")[2].partition("Connected to")[0]


@pytest.mark.slow
def test_it_notices_that_nothing_comes_by_its_connection(stands: dict[str, Stand]) -> None:
    there = stands["lose_a_connection_that_stays_open"]
    assert there.log().read_text().count("It reconnects.") == 1
    assert there.done() == {"before": 1, "waiting": 1}
    assert there.workers[0].poll() is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("lose_every_consumer", 1), ("hang", 70)])
def test_it_exits_where_reconnecting_does_not_help(stands: dict[str, Stand], name: str, code: int) -> None:
    there = stands[name]
    assert there.workers[0].returncode == code
    assert there.log().read_text().count("Reconnecting does not help: it exits") == 1


@pytest.mark.slow
def test_before_it_exits_what_runs_ends(stands: dict[str, Stand]) -> None:
    there = stands["lose_every_consumer_at_work"]
    assert there.workers[0].returncode == 1
    assert there.begun() == there.done() == {"running": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["be_busy_paused_and_idle", "be_busy_alone", "hold_what_is_not_due"])
def test_no_false_alarm(stands: dict[str, Stand], name: str) -> None:
    there = stands[name]
    assert there.workers[0].poll() is None
    assert "stuck" not in there.log().read_text().replace("stuck-", "").replace("stuck_app", "")


@pytest.mark.slow
def test_a_worker_whose_turn_it_is_not_is_left_alone(stands: dict[str, Stand]) -> None:
    servers.require("RabbitMQ", 5672)
    there = stands["wait_for_their_turn_on_rabbitmq"]
    assert [worker.poll() for worker in there.workers] == [None, None]
    assert "It reconnects." not in there.log(1).read_text()


@pytest.mark.slow
def test_on_rabbitmq_what_runs_is_not_given_to_somebody_else(stands: dict[str, Stand]) -> None:
    servers.require("RabbitMQ", 5672)
    there = stands["lose_consumers_on_rabbitmq"]
    assert there.begun() == there.done() == {"running": 1, "beside it": 1, "later": 1}
    # Where something ran, the consumer was made anew and not the connection.
    log = there.log().read_text()
    assert (log.count("It reconnects."), log.count("Connection to broker lost")) == (2, 1)
