"""``examples/web_app.py``, and each line that ``docs/web.md`` has one type."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from celery_agents.sandbox import SandboxServer
from tests.servers import free_port, new_valkey
from tests.web.encord import SECRET, body_of, envelope, signed
from tests.worker.conftest import ROOT, wait_until

START, ASK = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "web.md").read_text(), re.DOTALL)
#: What has to be there for somebody to follow the page.
PROGRAMS = ("bash", "curl", "jq")


def run(script: str, env: dict[str, str]) -> str:
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(autouse=True)
def programs() -> None:
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        assert os.environ.get("CI") != "true", missing
        pytest.skip(f"{missing} are not installed")


def test_every_line_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    with SandboxServer.start(tasks=10, seed=77) as sandbox, new_valkey() as valkey:
        port = free_port()
        # The site of the other tests has these, and Celery's command line obeys them before all configuration.
        inherited = {k: v for k, v in os.environ.items() if k not in {"BROKER_URL", "RESULT_BACKEND"}}
        env = {
            **inherited,
            **sandbox.env(),
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{valkey.port}/0",
            "CELERY_RESULT_BACKEND": f"redis://127.0.0.1:{valkey.port}/1",
            "WEB_TOKEN": "a token",
            "ENCORD_WEBHOOK_SECRET": SECRET,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        # Given the two processes of the page
        commands = [line.removesuffix(" &").replace("8000", str(port)).split() for line in START.splitlines()]
        with (tmp_path / "log").open("wb") as log:
            processes = [
                subprocess.Popen(each, cwd=ROOT, env=env, stdout=log, stderr=log) for each in commands
            ]
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until("the web answers", lambda: _answers(url, processes, tmp_path / "log"))
            env["SPEC"] = _some_spec(env)
            # When somebody types what it has them type
            told = run(ASK.replace("8000", str(port)), env)
            # Then they see what it says
            assert '"stage":"Pre-label"' in told
            assert told.count("event: end") == 1
            assert '"status": "SUCCEEDED"' in told
            assert re.search(r'^"(labelled|nothing found)"$', told, re.MULTILINE)
            assert told.rstrip().endswith('"SUCCEEDED"')
            # And nobody without the token does
            assert httpx.get(f"{url}/agents/stages").status_code in {401, 403}
            assert httpx.get(f"{url}/docs").status_code == 200
            # And Encord is heard
            stage = re.search(r'"stage_uuid": "(.*?)"', _some_spec(env, with_stage=True))
            assert stage
            body = body_of(envelope(sandbox.project_hash, stage[1]))
            heard = httpx.post(
                f"{url}/agents/encord/task-ready", content=body, headers=signed(body), timeout=30
            )
            assert (heard.status_code, heard.json()["status"]) == (200, "asked")
            wait_until("all have been moved", lambda: len(sandbox.audit.moves()) == 10)
            assert set(sandbox.audit.moves().values()) == {1}
        finally:
            for each in processes:
                each.terminate()
            for each in processes:
                each.wait(30)


SPEC = """
import json
from examples.web_app import runner
stage = runner.gateway.agent_stage("Pre-label")
task = next(iter(runner.gateway.list_tasks(stage)), None)
print(json.dumps({**(task.model_dump(mode="json") if task else {}), **STAGE}))
"""


def _some_spec(env: dict[str, str], *, with_stage: bool = False) -> str:
    script = SPEC.replace("STAGE", '{"stage_uuid": str(stage.uuid)}' if with_stage else "{}")
    return subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, env=env, text=True).strip()


def _answers(url: str, processes: list[subprocess.Popen[Any]], log: Path) -> bool:
    assert all(each.poll() is None for each in processes), log.read_text()
    try:
        return httpx.get(f"{url}/docs").status_code == 200
    except httpx.TransportError:
        return False
