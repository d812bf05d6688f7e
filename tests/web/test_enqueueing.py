"""One spec, or a stage, enqueued over HTTP by a caller who then asks what became of it."""

from __future__ import annotations

import json
import socket
import uuid

import pytest

from celery_agents.web import documents
from tests.web.conftest import Web


def test_one_spec_is_sent_and_its_outcome_can_be_asked_for(web: Web) -> None:
    spec = web.waiting()[0]
    answer = web.enqueue(spec)
    assert answer.status_code == 202
    sent = answer.json()
    assert answer.headers["Location"] == f"/agents/messages/{sent['id']}"
    documents.MessageDocument.model_validate(sent)
    told = web.ended(sent["id"])
    documents.MessageDocument.model_validate(told)
    assert (told["status"], told["counts"]) == ("SUCCEEDED", {"PROCEEDED": 1})
    assert told["outcomes"][0]["task_uuid"] == spec["uuid"]
    assert web.site.sandbox.audit.moves()[spec["uuid"]] == 1
    # By the agent task, and by its data unit.
    for name in (spec["uuid"], spec["data_hash"]):
        known = web.client.get(f"/agent-tasks/{name}").json()
        documents.AgentTaskDocument.model_validate(known)
        assert (known["message"]["id"], known["outcome"]["outcome"]) == (sent["id"], "PROCEEDED")


def test_what_an_agent_raises_is_told(web: Web) -> None:
    spec = web.waiting()[0]
    web.bar(spec, "stone")
    told = web.ended(web.enqueue(json.dumps(spec)).json()["id"])  # the spec as text
    documents.MessageDocument.model_validate(told)
    assert told["status"] == "FAILED"
    assert told["errors"][spec["uuid"]]["type"] == "builtins.ValueError"
    assert "is no good" in told["detail"]


def test_what_is_in_flight_is_not_sent_twice_unless_forced(web: Web) -> None:
    spec = web.waiting()[0]
    gate = web.bar(spec)
    first = web.enqueue(spec).json()["id"]
    again = web.enqueue(spec)
    assert again.status_code == 409
    assert again.headers["Content-Type"] == "application/problem+json"
    assert again.json()["message_id"] == first
    assert "is in flight" in again.json()["detail"]
    forced = web.enqueue(spec, force=True)
    assert forced.status_code == 202
    gate.unlink()
    # Within two seconds the first may commit without asking whether it still may; Encord refuses the second move.
    assert web.ended(forced.json()["id"])["counts"] in ({"PROCEEDED": 1}, {"GONE": 1})
    assert web.site.sandbox.audit.moves()[spec["uuid"]] == 1


@pytest.mark.parametrize(
    ("spec", "detail"),
    [
        ("no JSON", "Not a task spec"),
        ({}, "field 'uuid'"),
        ({"uuid": "x" * 70_000}, "70,"),
        ([1], "body.spec"),
        (None, "body.spec"),
    ],
)
def test_what_is_no_spec_is_refused_in_one_sentence(web: Web, spec: object, detail: str) -> None:
    answer = web.enqueue(spec)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert detail in answer.json()["detail"]
    assert len(answer.text) < 1_000  # without what was sent


@pytest.mark.parametrize("field", ["project_hash", "stage_uuid"])
def test_a_spec_for_another_agent_is_refused(web: Web, field: str) -> None:
    answer = web.enqueue({**web.waiting()[0], field: str(uuid.uuid4())})
    assert answer.status_code == 422
    assert f"is for {field.partition('_')[0]}" in answer.json()["detail"]


def test_only_agents_can_be_enqueued(web: Web) -> None:
    spec = web.waiting()[0]
    for name in (
        "somebody.elses",
        "Nowhere",
        "",
        web.site.app.tasks["somebody.elses"].name,
        "celery.backend_cleanup",
    ):
        answer = web.enqueue(spec, stage=name)
        assert answer.status_code == 404, name
        assert "there are: 'Pre-label', 'Route'" in answer.json()["detail"]
        assert web.client.post("/sweeps", json={"stage": name}).status_code == 404
    assert web.enqueue(spec, project_hash=str(uuid.uuid4())).status_code == 404
    assert web.enqueue(spec, task="somebody.elses").status_code == 422


def test_a_body_that_is_too_long_is_not_read(web: Web) -> None:
    answer = web.client.post("/messages", content=b" " * 300_000)
    assert answer.status_code == 413
    streamed = web.client.post("/messages", content=(b" " * 10_000 for _ in range(30)))  # says no length
    assert streamed.status_code == 413
    assert "262,144 bytes" in streamed.json()["detail"]


def test_a_body_that_says_that_it_is_too_long_is_not_waited_for(web: Web) -> None:
    host, port = str(web.client.base_url.host), web.client.base_url.port
    with socket.create_connection((host, port), timeout=30) as connection:
        head = "POST /agents/messages HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 300000\r\n\r\n".encode())
        assert b" 413 " in connection.recv(1_000)


def test_stages_are_listed(web: Web) -> None:
    stages = web.client.get("/stages").json()
    assert [each["stage"] for each in stages] == ["Pre-label", "Route"]
    assert {each["project_hash"] for each in stages} == {web.site.sandbox.project_hash}
    for each in stages:
        documents.StageDocument.model_validate(each)


def test_a_stage_is_swept_by_a_worker_and_the_messages_can_be_asked_for(web: Web) -> None:
    web.ended(web.enqueue(web.waiting()[0]).json()["id"])  # something is at Route
    asked = web.client.post("/sweeps", json={"stage": "Route"})
    assert asked.status_code == 202
    documents.AskedDocument.model_validate(asked.json())
    assert asked.headers["Location"] == f"/agents/sweeps/{asked.json()['id']}"
    swept = web.swept(asked.json()["id"])
    documents.SweepDocument.model_validate(swept)
    number = swept["report"]["sent"][0]["agent_tasks"]
    counts = [web.ended(each)["counts"] for each in swept["report"]["ids"]]
    assert sum(each["HELD"] for each in counts) == number >= 1
