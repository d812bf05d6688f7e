"""Connections are kept, never trusted with more than they can bear, and only for clients of ours."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import requests
from encord.exceptions import RequestException, UnknownException
from encord.http import querier
from encord.orm.base_dto import BaseDTO
from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage

from celery_agents import sessions
from celery_agents.gateway import connections, kept
from celery_agents.gateway.classify import classify
from celery_agents.gateway.client import requests_settings
from celery_agents.gateway.project import Gateway
from celery_agents.sandbox import Fault, SandboxServer
from tests.worker.conftest import wait_until


@pytest.fixture(scope="module")
def served() -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=5) as server:
        yield server


@pytest.fixture
def sandbox(served: SandboxServer) -> Iterator[SandboxServer]:
    """The same server for all tests, each with new connections and counters."""
    connections.close_idle()
    served.counters.reset()
    yield served
    served.faults.clear()


def client(sandbox: SandboxServer) -> EncordUserClient:
    return EncordUserClient.create_with_ssh_private_key(sandbox.private_key, domain=sandbox.url)


def open_gateway(sandbox: SandboxServer, call_timeout: float = 30.0, *, keep: bool = True) -> Gateway:
    return Gateway(UUID(sandbox.project_hash), client(sandbox), call_timeout, keep_connections=keep)


def read(gateway: Gateway, stage: AgentStage) -> None:
    assert gateway.tasks_at(stage, [uuid4()]) == {}


def set_priority(gateway: Gateway) -> None:
    """Write something, in one call that may be repeated in a test."""
    (row, *_) = gateway.project.list_label_rows_v2()
    row.set_priority(0.5)


# ------------------------------------------------------------------------------------------------------ how many, whose


def test_one_thread_has_one_connection_for_both_apis(sandbox: SandboxServer) -> None:
    gateway = open_gateway(sandbox)
    rows = gateway.project.list_label_rows_v2()
    gateway.initialise(rows, {})
    for row in rows:
        row.save()
    read(gateway, gateway.agent_stage("Pre-label"))
    assert sandbox.calls.total() > 8
    assert sandbox.connections == 1


def test_without_the_setting_each_call_has_its_own(sandbox: SandboxServer) -> None:
    gateway = open_gateway(sandbox, keep=False)
    read(gateway, gateway.agent_stage("Pre-label"))
    assert sandbox.connections == sandbox.calls.total() == 3
    assert open_gateway(sandbox).agent_stages()
    assert (
        sandbox.connections == 4
    )  # nothing was left for the two calls of a gateway that keeps its connection


def test_other_clients_in_the_process_are_left_alone(sandbox: SandboxServer) -> None:
    theirs = client(sandbox)
    settings = theirs.user_config.requests_settings
    ours = Gateway(UUID(sandbox.project_hash), theirs)
    assert ours.project.project_hash == sandbox.project_hash
    sandbox.counters.reset()
    theirs.get_project(sandbox.project_hash).list_label_rows_v2()
    assert sandbox.connections == sandbox.calls.total() == 3
    assert type(settings.connection_retries) is int


def test_threads_share_no_connection_and_leave_them_to_later_threads(sandbox: SandboxServer) -> None:
    gateway = open_gateway(sandbox)
    stage = gateway.agent_stage("Pre-label")
    sandbox.faults.add(Fault(latency=0.02))
    for _ in range(3):
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: read(gateway, stage), range(40)))
    assert 1 < sandbox.connections <= 4


def test_idle_connections_are_closed(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LONGEST_IDLE", 0.05)
    gateway = open_gateway(sandbox)
    read(gateway, gateway.agent_stage("Pre-label"))
    wait_until("all are closed", lambda: sandbox.open_connections == 0)
    read(gateway, gateway.agent_stage("Pre-label"))
    wait_until("all are closed", lambda: sandbox.open_connections == 0)


def test_they_are_kept_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SandboxServer.start(tasks=1, tls=True) as sandbox:
        trusted = tmp_path / "ca.pem"
        trusted.write_text(str(sandbox.certificate))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
        gateway = open_gateway(sandbox)
        set_priority(gateway)
        read(gateway, gateway.agent_stage("Pre-label"))
        assert sandbox.url.startswith("https://")
        assert sandbox.connections == 1
        sandbox.faults.add(Fault(drop="before", times=1))
        read(gateway, gateway.agent_stage("Pre-label"))
        assert sandbox.calls["tasks.list"] == 3
        # What is kept was verified once; where nothing is trusted any more, nothing new is.
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        connections.close_idle()
        with pytest.raises(RequestException):
            read(gateway, gateway.agent_stage("Pre-label"))


# ------------------------------------------------------------------------------------------------------------- sessions


def lease() -> AbstractContextManager[requests.Session]:
    """Ask for a session as the SDK does for a call of a client of ours."""
    ours = requests_settings().connection_retries  # the first in a process puts our function in place
    return querier.create_new_session(0, 0.2, ours)


def test_the_session_that_was_used_last_is_the_next(sandbox: SandboxServer) -> None:
    with lease() as first, lease() as second:
        assert first is not second
    with lease() as third:
        assert third is first


def test_a_session_repeats_what_the_sdk_would_and_carries_nothing_over(sandbox: SandboxServer) -> None:
    with lease() as session, querier.create_new_session(0, 0.2, 1) as theirs:
        ours, stock = (vars(each.get_adapter("https://"))["max_retries"] for each in (session, theirs))
        assert vars(ours) == vars(stock)
        session.cookies.set("name", "value")
    with lease() as again:
        assert again is session
        assert not again.cookies


def test_a_session_whose_call_failed_is_not_used_again(sandbox: SandboxServer) -> None:
    with lease() as session:
        assert session.get(f"{sandbox.url}/sandbox/health").ok
    with pytest.raises(requests.ConnectionError), lease() as again:
        again.get("http://127.0.0.1:1")
    assert again is session
    with lease() as other:
        assert other is not session


# ------------------------------------------------------------------------------------------------- closed by the server


def test_what_the_server_closed_meanwhile_costs_no_call() -> None:
    with SandboxServer.start(tasks=1) as first:
        again = {"port": first.port, "private_key": first.private_key}
        gateway = open_gateway(first)
        assert gateway.agent_stages()
    with SandboxServer.start(first.state, **again) as second:
        (row,) = gateway.project.list_label_rows_v2()
        assert second.calls == {"label_rows.list": 1}
    with SandboxServer.start(first.state, **again) as third:
        row.set_priority(0.7)
        assert third.calls == {"priorities.set": 1}
    with SandboxServer.start(first.state, **again, faults=(Fault(drop="before"),)) as fourth:
        with pytest.raises(RequestException):
            gateway.project.list_label_rows_v2()
        assert fourth.calls == {"label_rows.list": 1}  # that connection was new


@pytest.mark.parametrize("call", ["tasks.list", "label_rows.list"])
def test_a_read_is_repeated_when_the_connection_is_closed_under_it(sandbox: SandboxServer, call: str) -> None:
    gateway = open_gateway(sandbox)
    stage = gateway.agent_stage("Pre-label")
    sandbox.counters.reset()
    sandbox.faults.add(Fault(call=call, drop="before", times=1))
    read(gateway, stage)
    assert len(gateway.project.list_label_rows_v2()) == 5
    assert sandbox.calls[call] == 2
    assert sandbox.connections == 1  # the one that was new; the first is from before the counters began


def test_a_read_is_repeated_once(sandbox: SandboxServer) -> None:
    gateway = open_gateway(sandbox)
    stage = gateway.agent_stage("Pre-label")
    sandbox.faults.add(Fault(call="tasks.list", drop="before"))
    with pytest.raises(RequestException) as caught:
        read(gateway, stage)
    assert sandbox.calls["tasks.list"] == 2
    assert classify(caught.value).transient


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_write_is_never_sent_twice(sandbox: SandboxServer, drop: str) -> None:
    gateway = open_gateway(sandbox)
    (row, *_) = gateway.project.list_label_rows_v2()
    gateway.initialise([row], {})
    sandbox.faults.add(Fault(call="labels.save", drop=drop, times=1))
    sandbox.faults.add(Fault(call="priorities.set", drop=drop, times=1))
    writes: list[Callable[[], None]] = [row.save, lambda: row.set_priority(0.5)]
    for write in writes:
        with pytest.raises(RequestException) as caught:
            write()
        assert classify(caught.value).transient
    assert sandbox.calls["labels.save"] == sandbox.calls["priorities.set"] == 1


def test_a_write_goes_over_a_connection_in_use_a_moment_ago(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = open_gateway(sandbox)
    set_priority(gateway)
    assert sandbox.connections == 1
    monkeypatch.setattr(kept, "LONGEST_IDLE_FOR_WRITES", 0.0)
    set_priority(gateway)
    assert sandbox.connections == 2
    read(gateway, gateway.agent_stage("Pre-label"))
    assert sandbox.connections == 2


# ------------------------------------------------------------------------------------------------------- bounded in all


@pytest.mark.parametrize("keep", [True, False])
def test_a_body_that_drips_is_given_up(sandbox: SandboxServer, keep: bool) -> None:
    gateway = open_gateway(sandbox, call_timeout=1.0, keep=keep)
    stage = gateway.agent_stage("Pre-label")
    # Eight pieces, each within the time for one wait.
    sandbox.faults.add(Fault(call="tasks.list", slow=2.4, times=1))
    with pytest.raises(RequestException) as caught:
        read(gateway, stage)
    assert classify(caught.value).transient
    read(gateway, stage)


def test_a_call_that_was_given_up_leaves_its_connection_to_nobody(sandbox: SandboxServer) -> None:
    gateway = open_gateway(sandbox, call_timeout=1.0)
    stage = gateway.agent_stage("Pre-label")
    sandbox.faults.add(Fault(call="tasks.list", latency=0.7, times=1))
    with pytest.raises(RequestException):
        read(gateway, stage)
    assert sandbox.calls["tasks.list"] == 1
    read(gateway, stage)
    assert sandbox.connections == 2


def test_headers_that_drip_are_given_up() -> None:
    with dripping(b"HTTP/1.1 200 OK\r\n", b"X-Drip: 1\r\n" * 80, b"Content-Length: 2\r\n\r\n{}") as url:
        settings = requests_settings(1.0)
        api = EncordUserClient.create_with_ssh_private_key(
            SandboxServer().private_key, domain=url, requests_settings=settings
        )._api_client
        with pytest.raises(RequestException):
            api.delete("anything", params=None)


def test_sending_may_take_longer_than_connecting() -> None:
    # Nothing is read from a connection for the first 0.8 s, and 0.5 s are the time to connect.
    with SandboxServer.start(tasks=0, connect_latency=0.8) as sandbox:
        api = EncordUserClient.create_with_ssh_private_key(
            sandbox.private_key, domain=sandbox.url, requests_settings=requests_settings(3.0)
        )._api_client
        with pytest.raises(UnknownException):
            api.post("no-such-call", params=None, payload=Large(), result_type=None)


class Large(BaseDTO):
    """More than the buffers of a socket hold."""

    text: str = "x" * 20_000_000


@contextmanager
def dripping(start: bytes, slowly: bytes, end: bytes) -> Iterator[str]:
    """Serve one answer, of which a part comes byte by byte, a hundred in three seconds at most."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=drip, args=(listener, start, slowly, end))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def drip(listener: socket.socket, start: bytes, slowly: bytes, end: bytes) -> None:
    connection, _ = listener.accept()
    is_gone = threading.Event()
    with connection:
        connection.recv(65536)
        try:
            connection.sendall(start)
            for byte in slowly:
                is_gone.wait(0.003)
                connection.sendall(bytes([byte]))
            connection.sendall(end)
        except OSError:
            is_gone.set()


# ---------------------------------------------------------------------------------------------- processes and greenlets

PREAMBLE = """
import os, threading, warnings
from uuid import UUID, uuid4
from celery_agents.gateway.project import Gateway
warnings.simplefilter("always", ResourceWarning)
gateway = Gateway(UUID(os.environ["CELERY_AGENTS_PROJECT"]))
stage = gateway.agent_stage("Pre-label")
def read(*_): assert gateway.tasks_at(stage, [uuid4()]) == {}
"""

FORKING = """
had = threading.active_count()
pid = os.fork()
assert threading.active_count() == 1  # Python 3.12 and newer complain of others
read()
if not pid:
    os._exit(0)
assert had == 2  # with the one that closes what is idle
assert os.waitpid(pid, 0)[1] == 0
read()
"""

GREENLETS = """
for _ in range(3):
    gevent.wait([gevent.spawn(read) for _ in range(4)])
"""

ALTERED = """
from encord.http import querier
from encord.http.v2 import api_client
stock = querier.create_new_session
def traced(*args, **options): return stock(*args, **options)
querier.create_new_session = api_client.create_new_session = traced
"""


def run(sandbox: SandboxServer, program: str) -> str:
    """Run a program in a process of its own, and return what it had to say."""
    environment = os.environ | sandbox.env()
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, stderr=subprocess.PIPE, text=True
    ).stderr


def test_a_child_has_connections_of_its_own(sandbox: SandboxServer) -> None:
    assert run(sandbox, PREAMBLE + FORKING) == ""
    # What the parent had is closed before the fork: one before, one after it, and the child's.
    assert sandbox.connections == 3
    wait_until("all are closed", lambda: sandbox.open_connections == 0)


def test_greenlets_share_like_threads(sandbox: SandboxServer) -> None:
    sandbox.faults.add(Fault(latency=0.02))
    start = "import gevent.monkey; gevent.monkey.patch_all()\n"
    assert run(sandbox, start + PREAMBLE + GREENLETS) == ""
    assert sandbox.connections == 4


def test_an_sdk_that_is_not_as_we_know_it_stays_as_it_is(sandbox: SandboxServer) -> None:
    said = run(sandbox, ALTERED + PREAMBLE + "read(); Gateway(gateway.project_hash).agent_stages()")
    assert sandbox.connections == sandbox.calls.total() == 5
    assert said.count("create_new_session is not what it was") == 1


def test_the_sdk_is_as_we_know_it() -> None:
    as_known: Callable[[], bool] = connections._is_in_place
    assert as_known()
