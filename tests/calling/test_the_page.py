"""The examples of docs/agents.md, each run as it stands."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from celery_agents import StageTask, TaskCompletionResult
from celery_agents.sandbox import SandboxServer

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()
PRELUDE, *EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Model(BaseHTTPRequestHandler):
    """A model server that knows one answer."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"labelled")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def model_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch, model_url: str) -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=10, seed=5) as server:
        for name, value in (server.env() | {"MODEL_URL": model_url}).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: re.findall(r"def (\w+)\(", code)[-1])
def test_an_example_does_what_it_says(sandbox: SandboxServer, example: str) -> None:
    names: dict[str, Any] = {"__name__": "reader"}
    exec(compile(PRELUDE + "\n" + example, "docs/agents.md", "exec"), names)
    (task,) = [each for each in names.values() if isinstance(each, StageTask)]
    gateway = names["runner"].gateway
    with_frames = [
        each
        for each in gateway.list_tasks(task.agent_stage)
        if each.data_title.startswith(("image-", "video-"))
    ]
    result = TaskCompletionResult.model_validate_json(task([each.model_dump_json() for each in with_frames]))
    assert len(with_frames) > 1
    assert Counter(each.pathway_name for each in result.outcomes or ()) == {"labelled": len(with_frames)}


def test_no_example_is_left_out() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") - 1 == 6
