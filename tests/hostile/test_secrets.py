"""Keys, passwords and signed URLs: in no outcome, no log, and on no screen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from encord.workflow.stages.agent import AgentTask

from celery_agents.messages import Outcome, TaskCompletionResult
from celery_agents.sandbox import SandboxServer
from tests.execution.conftest import Bench, open_bench

SECRET = "s3cretS3CRET"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with SandboxServer.start(tasks=1, seed=3) as sandbox:
        yield open_bench(sandbox)


#: What an agent may raise, KEY being this process's own. To add a case, add a line.
RAISED = [
    "KEY",
    "the key is KEY, which is wrong",
    "LINE",
    f"GET https://storage.googleapis.com/b/x.png?X-Goog-Algorithm=GOOG4&X-Goog-Signature={SECRET} answered 403",
    f"https://b.s3.amazonaws.com/x.png?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}",
    f"https://a.blob.core.windows.net/c/x.png?sv=2024&sig={SECRET}",
    f"{{'Authorization': 'Bearer {SECRET}'}}",
    f"cannot connect to amqp://me:{SECRET}@rabbit:5672//",
    f"cannot connect to redis://:{SECRET}/with@odd@host:6379/0",
]


@pytest.mark.parametrize("text", RAISED)
def test_what_an_agent_raises_gives_nothing_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    key = bench.sandbox.private_key
    monkeypatch.setenv("ENCORD_SSH_KEY", key)
    lines = [line for line in key.splitlines() if line and not line.startswith("-----")]
    text = text.replace("KEY", key).replace("LINE", lines[1])

    def fail(task: AgentTask) -> None:
        try:
            raise ConnectionError(text)
        except ConnectionError as error:
            error.add_note(text)
            raise ValueError([text, text.encode()]) from error

    execution = bench.execute(fail)
    (outcome,) = execution.outcomes
    assert outcome.outcome is Outcome.FAILED
    stored = TaskCompletionResult.from_outcomes(execution.outcomes, None).model_dump_json()
    assert SECRET not in stored
    assert not [line for line in lines if line in stored]
    assert "fail" in stored  # the rest of the traceback is there


def run(sandbox: SandboxServer, broker: str, *command: str) -> str:
    """Run one of Celery's commands, and return all that it prints."""
    env = os.environ | sandbox.env() | {"BROKER_URL": broker, "RESULT_BACKEND": "cache+memory://"}
    env |= {"QUEUE": "q", "ACCEPT": "json", "LEDGER_URL": "redis://127.0.0.1:1/2", "C_FORCE_ROOT": "1"}
    celery = [sys.executable, "-m", "celery", "-A", "tests.hostile.app", *command]
    finished = subprocess.run(
        celery, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode != 0
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("command", ["worker", "agents enqueue"])
def test_a_password_that_was_not_encoded_is_not_quoted(bench: Bench, command: str) -> None:
    printed = run(bench.sandbox, f"amqp://me:{SECRET}/x@127.0.0.1:5672//", *command.split())
    assert "The URL in the setting broker_url cannot be read" in printed
    assert SECRET not in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("command", ["agents enqueue"])
def test_a_broker_that_is_not_there_is_named_without_its_password(bench: Bench, command: str) -> None:
    printed = run(bench.sandbox, f"redis://me:{SECRET}@127.0.0.1:1/0", *command.split())
    assert "127.0.0.1:1" in printed
    assert SECRET not in printed
    assert "Traceback" not in printed
