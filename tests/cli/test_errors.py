"""What is wrong is said in one sentence: no traceback, no password, the right exit code."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from celery_agents.sandbox import SandboxServer
from tests.cli.conftest import Answer, CommandLine

NOBODY = "7a4d0000-0000-4000-8000-000000000000"


def assert_one_sentence(answer: Answer, *parts: str, code: int = 1) -> None:
    assert answer.out == ""
    assert answer.err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in answer.err
    assert "hunter2" not in answer.err
    for part in parts:
        assert part in answer.err
    assert answer.code == code


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which every connection is refused: bound, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_an_app_without_agents(quiet_cli: CommandLine) -> None:
    answer = quiet_cli.but("empty_app")("stages")
    assert_one_sentence(answer, "no @runner.stage in app 'empty'", "import the module")


def test_no_key(quiet_cli: CommandLine) -> None:
    answer = quiet_cli.but(ENCORD_SSH_KEY=None)("stages")
    assert_one_sentence(answer, "No Encord key", "ENCORD_SSH_KEY_FILE")


def test_a_key_that_encord_does_not_know(quiet_cli: CommandLine) -> None:
    with SandboxServer.start(tasks=0) as other:
        answer = quiet_cli.but(ENCORD_SSH_KEY=other.private_key)("stages")
    assert_one_sentence(answer, "Encord does not accept this key")
    assert "PRIVATE KEY" not in answer.err


def test_a_project_that_is_not_there(quiet_cli: CommandLine) -> None:
    answer = quiet_cli.but(CELERY_AGENTS_PROJECT=NOBODY)("stages")
    assert_one_sentence(answer, f"no project {NOBODY}")


def test_a_stage_that_the_project_does_not_have(quiet_cli: CommandLine) -> None:
    answer = quiet_cli.but(SECOND_STAGE="Rout")("stages")
    assert_one_sentence(answer, "no agent stage 'Rout'", "did you mean 'Route'?")


def test_a_stage_that_no_agent_is_declared_for(quiet_cli: CommandLine) -> None:
    answer = quiet_cli.but("light_app")("enqueue", "--stage", "Pre-lable")
    assert_one_sentence(answer, "'Pre-lable'", "did you mean 'Pre-label'?", code=2)


def test_encord_down(quiet_cli: CommandLine, closed_port: int) -> None:
    where = f"http://127.0.0.1:{closed_port}"
    answer = quiet_cli.but(ENCORD_DOMAIN=where)("stages")
    assert_one_sentence(answer, f"Encord does not answer at {where}")


@pytest.mark.parametrize("command", ["enqueue", "watch"])
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_the_broker_down(quiet_cli: CommandLine, closed_port: int, scheme: str, command: str) -> None:
    url = f"{scheme}://user:hunter2@127.0.0.1:{closed_port}/"
    answer = quiet_cli.but("light_app", CELERY_BROKER_URL=url)(command)
    assert_one_sentence(
        answer, f"{scheme}://user:***@127.0.0.1:{closed_port}/", "cannot be reached", "broker_url"
    )


def test_the_result_backend_down(quiet_cli: CommandLine, closed_port: int) -> None:
    url = f"redis://:hunter2@127.0.0.1:{closed_port}/0"
    answer = quiet_cli.but("light_app", CELERY_RESULT_BACKEND=url)("status", "some-id")
    assert_one_sentence(answer, f"127.0.0.1:{closed_port}", "cannot be read")


def test_waiting_without_a_result_backend_is_refused_before_anything_is_sent(
    cli_without_messages: CommandLine,
) -> None:
    line = cli_without_messages.but("light_app", CELERY_RESULT_BACKEND=None)
    assert_one_sentence(line("enqueue", "--wait"), "no result backend", "result_backend")
    [queue] = line("watch", "--once", "--json").json["queues"]
    assert queue["waiting"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["enqueue", "--batch-size", "0"],
        ["enqueue", "--status", "LOST"],
        ["enqueue", "--data-hash", "not-a-uuid"],
        ["status"],
        ["status", "-"],
        ["watch", "--interval", "0"],
    ],
    ids=" ".join,
)
def test_wrong_usage(quiet_cli: CommandLine, arguments: list[str]) -> None:
    answer = quiet_cli.but("light_app")(*arguments)
    assert (answer.out, answer.code) == ("", 2)
    assert "Error: " in answer.err
