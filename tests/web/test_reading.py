"""What can be read, followed and cancelled: messages for agents, and nothing else."""

from __future__ import annotations

import json
import uuid

from celery_agents.producer.filters import TaskFilters
from celery_agents.web import documents
from tests.web.conftest import Web
from tests.worker.conftest import wait_until


def test_an_id_that_nobody_knows_is_not_found(web: Web) -> None:
    for path in ("/messages/{}", "/messages/{}/events", "/agent-tasks/{}", "/sweeps/{}"):
        answer = web.client.get(path.format(uuid.uuid4()))
        assert answer.status_code == 404, path
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == 404
    assert web.client.post(f"/messages/{uuid.uuid4()}/cancel").status_code == 404
    assert web.client.get("/messages/%F0%9F%90%99 " + "x" * 3_000).status_code == 404
    assert web.client.get("/agent-tasks/not-a-uuid").status_code == 422


def test_other_people_s_tasks_are_not_found_and_not_cancelled(web: Web) -> None:
    """A result backend holds everybody's results; theirs may be anybody's secret."""
    task = web.site.app.tasks["somebody.elses"]
    done, broken, running = task.delay(), task.delay(-1), task.delay(1)
    done.get(timeout=30)
    broken.get(timeout=30, propagate=False)
    wait_until("it runs", lambda: running.state == "STARTED")
    for result in (done, broken, running):
        for answer in (
            web.client.get(f"/messages/{result.id}"),
            web.client.get(f"/messages/{result.id}/events"),
            web.client.get(f"/sweeps/{result.id}"),
            web.client.post(f"/messages/{result.id}/cancel"),
        ):
            assert answer.status_code == 404
            assert "secret" not in answer.text
    assert running.get(timeout=30) == "theirs"


def test_a_sweep_is_no_message_for_agents(web: Web) -> None:
    asked = web.client.post("/sweeps", json={"stage": "Route"}).json()["id"]
    assert web.client.get(f"/messages/{asked}").status_code == 404
    assert web.client.post(f"/messages/{asked}/cancel").status_code == 404
    web.swept(asked)  # another sweep would be held up by it


def test_what_others_have_sent_is_found_by_its_agent_task(web: Web) -> None:
    """The CLI, or ``delay``: nobody has noted these messages, but the ledger knows who has the agent task."""
    # The first ones may be moved yet by what other tests have cancelled while it ran.
    spec = web.waiting()[-1]
    gate = web.bar(spec)
    group = web.site.runner.enqueue("Pre-label", filters=TaskFilters(data_hash=spec["data_hash"]))
    (message,) = group.ids
    known = web.client.get(f"/agent-tasks/{spec['uuid']}").json()
    documents.AgentTaskDocument.model_validate(known)
    assert known["message"]["id"] == message, known
    assert known["message"]["status"] in {"QUEUED", "RUNNING"}
    assert web.client.get(f"/messages/{message}").status_code == 200
    gate.unlink()
    assert web.ended(message)["status"] == "SUCCEEDED"


def test_a_message_of_others_stays_known_when_its_delivery_ends(web: Web) -> None:
    """A moment passes from there until its result is stored."""
    spec = web.waiting()[0]
    gate = web.bar(spec)
    message = web.site.runner.task_for("Pre-label").delay(json.dumps(spec)).id
    wait_until("it runs", lambda: web.client.get(f"/messages/{message}").status_code == 200)
    ledger = web.site.runner.ledger
    assert ledger is not None
    key = ledger.keys.message(message)
    ledger._connection.command("RENAME", key, f"{key}:aside")
    assert web.client.get(f"/messages/{message}").status_code == 200
    ledger._connection.command("RENAME", f"{key}:aside", key)
    gate.unlink()
    assert web.ended(message)["status"] == "SUCCEEDED"


def test_outcomes_outlive_the_result(web: Web) -> None:
    spec = web.waiting()[0]
    message = web.enqueue(spec).json()["id"]
    web.ended(message)
    web.site.app.AsyncResult(message).forget()
    known = web.client.get(f"/agent-tasks/{spec['uuid']}").json()
    documents.AgentTaskDocument.model_validate(known)
    assert known["message"]["status"] == "UNKNOWN"
    assert (known["outcome"]["outcome"], known["decided_by"]) == ("PROCEEDED", message)


def test_a_message_is_cancelled(web: Web) -> None:
    barred, waiting = web.waiting()[:2]
    gate = web.bar(barred)
    first = web.site.runner.task_for("Pre-label").delay([json.dumps(barred), json.dumps(waiting)])
    wait_until("it runs", lambda: web.client.get(f"/messages/{first.id}").status_code == 200)
    cancelled = web.client.post(f"/messages/{first.id}/cancel")
    assert cancelled.status_code == 202
    documents.MessageDocument.model_validate(cancelled.json())
    wait_until("the worker has heard of it", lambda: first.id in _revoked(web))
    gate.unlink()
    assert web.ended(first.id)["status"] == "CANCELLED"
    wait_until("it was met", lambda: web.client.get(f"/messages/{first.id}").json()["outcomes"])
    again = web.client.post(f"/messages/{first.id}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "CANCELLED")
    assert web.site.sandbox.audit.moves()[waiting["uuid"]] == 0


def _revoked(web: Web) -> set[str]:
    told = web.site.app.control.inspect(timeout=0.5).revoked() or {}
    return {message_id for ids in told.values() for message_id in ids}
