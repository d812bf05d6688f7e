"""The running server: its life, its counters, and its own routes."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import pytest
import requests
from encord import EncordUserClient, Project
from encord.workflow import AgentStage

from celery_agents.sandbox import Fault, Sandbox, SandboxServer
from celery_agents.sandbox import Project as ProjectState
from celery_agents.sandbox.admin import Admin, is_loopback
from celery_agents.sandbox.counters import Counters
from celery_agents.sandbox.errors import ForbiddenError

from .conftest import KINDS, add_box, hash_of, signed


def get(sandbox: SandboxServer, path: str, method: str = "GET", **options: Any) -> requests.Response:
    return requests.request(method, f"{sandbox.url}/sandbox/{path}", timeout=10, **options)


def test_start_returns_when_connections_are_accepted_and_stop_ends_them() -> None:
    server = SandboxServer.start(tasks=1)
    assert get(server, "health").json() == {"status": "ok"}
    port = server.port

    server.stop()
    server.stop()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_in_use_is_raised_at_the_start(sandbox: SandboxServer) -> None:
    with pytest.raises(OSError, match="in use"):
        SandboxServer.start(port=sandbox.port)


def test_a_bad_key_is_raised_at_the_start() -> None:
    with pytest.raises(ValueError, match=r".+"):
        SandboxServer.start(private_key="no key")


def test_a_state_of_ones_own() -> None:
    state = Sandbox()
    with SandboxServer.start(state) as server:
        assert server.state is state
        assert "CELERY_AGENTS_PROJECT" not in server.env()
        with pytest.raises(LookupError):
            _ = server.project_hash


def test_the_environment_leads_the_sdk_here(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    env = sandbox.env()
    monkeypatch.setenv("ENCORD_SSH_KEY", env["ENCORD_SSH_KEY"])

    client = EncordUserClient.create_with_ssh_private_key(domain=env["ENCORD_DOMAIN"])

    assert client.get_project(env["CELERY_AGENTS_PROJECT"]).title == "Sandbox project"
    with_file = sandbox.env("/somewhere/key")
    assert with_file["ENCORD_SSH_KEY_FILE"] == "/somewhere/key"
    assert "ENCORD_SSH_KEY" not in with_file


def test_the_sdk_opens_a_connection_per_call(project: Project, sandbox: SandboxServer) -> None:
    project.refetch_data()
    assert sandbox.connections == sandbox.calls.total() == 3


def test_connections_can_be_kept(sandbox: SandboxServer) -> None:
    request = signed(sandbox, "GET", "projects")
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port)
    for _ in range(5):
        connection.request("GET", request.path_url, headers=dict(request.headers))
        with connection.getresponse() as response:
            assert response.status == 200
            response.read()
    connection.close()

    assert (sandbox.calls["projects.list"], sandbox.connections) == (5, 1)


def test_the_report_tells_what_happened(
    project: Project, stage: AgentStage, state: ProjectState, sandbox: SandboxServer
) -> None:
    image = hash_of(state, "image")
    (row,) = project.list_label_rows_v2(data_hashes=[image])
    row.initialise_labels()
    add_box(row, project)
    row.save()
    (task,) = stage.get_tasks(data_hash=image)
    task.proceed("labelled")
    row.save()

    report = get(sandbox, "report").json()

    assert report["calls"]["labels.save"] == 2
    assert report["connections"] == sum(report["calls"].values()) + 1
    (told,) = report["projects"]
    assert told["project_hash"] == sandbox.project_hash
    pre_label, route, *_ = told["stages"]
    assert (pre_label["title"], pre_label["type"], pre_label["tasks"]) == ("Pre-label", "AGENT", KINDS - 1)
    assert pre_label["left"] == {str(task.uuid): 1}
    assert (route["title"], route["tasks"]) == ("Route", 1)
    unit = next(unit for unit in told["data_units"] if unit["data_hash"] == image)
    assert (unit["kind"], unit["stage"], unit["saves"]) == ("image", "Route", 2)
    assert unit["boxes"] == [{"x": 0.25, "y": 0.5, "w": 0.5, "h": 0.25}]
    truth = state.units[image].truth[0]
    assert unit["truth"] == [{"x": truth.x, "y": truth.y, "w": truth.w, "h": truth.h}]
    audit = report["audit"]
    assert (audit["moves"], audit["moved_more_than_once"]) == ({str(task.uuid): 1}, [])
    assert [record["data_hash"] for record in audit["saves_after_move"]] == [image]
    assert (audit["saves"], audit["refused"], audit["refused_by_call"]) == (2, 0, {})
    assert report == {**sandbox.report(), "connections": report["connections"]}


def test_the_audit_is_paged(stage: AgentStage, sandbox: SandboxServer) -> None:
    for task in stage.get_tasks():
        task.proceed("labelled")

    first = get(sandbox, "audit?limit=3").json()
    rest = get(sandbox, f"audit?after={first['last']}").json()

    assert [record["number"] for record in first["records"]] == [1, 2, 3]
    assert [record["number"] for record in rest["records"]] == list(range(4, KINDS + 1))
    assert get(sandbox, f"audit?after={rest['last']}").json() == {"records": [], "last": KINDS}
    assert get(sandbox, "audit?after=x").status_code == 400


def test_faults_from_other_processes(project: Project, sandbox: SandboxServer) -> None:
    get(sandbox, "faults", "POST", json="projects.get:status=500,times=1")
    get(sandbox, "faults", "POST", json=[{"call": "tasks.list", "latency": 0.01}, "label*:status=503"])
    with pytest.raises(Exception, match="told to fail"):
        project.refetch_data()

    told = get(sandbox, "faults").json()

    assert told[0] == {"call": "projects.get", "status": 500, "times": 1, "matched": 1, "hit": 1}
    assert len(told) == len(sandbox.faults) == 3
    assert get(sandbox, "faults", "DELETE").json() == []
    refused = get(sandbox, "faults", "POST", json={"status": 200})
    assert (refused.status_code, "between 400" in refused.json()["message"]) == (400, True)
    assert get(sandbox, "faults", "POST", data="{").status_code == 501


def test_counters_start_again(project: Project, sandbox: SandboxServer) -> None:
    assert sandbox.calls
    get(sandbox, "reset-counters", "POST")
    assert (sandbox.calls, sandbox.connections) == ({}, 0)
    assert get(sandbox, "no-such-route").status_code == 501


def test_the_own_routes_are_for_this_machine(sandbox: SandboxServer) -> None:
    admin = Admin(sandbox.state, sandbox.faults, Counters(), token="secret")

    admin.check_caller("127.0.0.1", "")
    admin.check_caller("::1", "")
    admin.check_caller("192.0.2.1", "Bearer secret")
    for host, authorization in (("192.0.2.1", ""), ("192.0.2.1", "Bearer guess"), (None, "")):
        with pytest.raises(ForbiddenError):
            admin.check_caller(host, authorization)
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")


def test_a_bug_in_the_sandbox_is_told_and_logged(
    sandbox: SandboxServer, state: ProjectState, caplog: pytest.LogCaptureFixture
) -> None:
    # An ontology that is no JSON can only come from a mistake in the Python API.
    state.ontology.editor = {"objects": [object()]}
    from .conftest import send

    response = send(signed(sandbox, "GET", f"projects/{sandbox.project_hash}"))

    assert response.status_code == 500
    assert "the sandbox itself failed" in response.json()["message"]
    assert "the sandbox failed at GET" in caplog.text


def test_concurrent_clients(sandbox: SandboxServer, state: ProjectState, project: Project) -> None:
    from concurrent.futures import ThreadPoolExecutor

    stage = project.workflow.get_stage(name="Pre-label", type_=AgentStage)
    tasks = list(stage.get_tasks())
    sandbox.faults.add(Fault(call="tasks.actions", latency=0.01))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda task: task.proceed("labelled"), tasks))

    assert state.count_at("Route") == KINDS
    assert sandbox.audit.moves() == {str(task.uuid): 1 for task in tasks}
