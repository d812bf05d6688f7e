"""What is wrong is said in one sentence: no traceback, no password, the right exit code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from celery_agents.sandbox import SandboxServer
from tests.cli.conftest import Answer, CommandLine, together

NOBODY = "7a4d0000-0000-4000-8000-000000000000"

#: Case -> words that its sentence has. What is done is in ``answers``.
SENTENCES: dict[str, tuple[str, ...]] = {
    "an app without agents": ("no @runner.stage in app 'empty'", "import the module"),
    "no key": ("No Encord key", "ENCORD_SSH_KEY_FILE"),
    "a key that Encord does not know": ("Encord does not accept this key",),
    "a project that is not there": (f"no project {NOBODY}",),
    "a stage that the project does not have": ("no agent stage 'Rout'", "did you mean 'Route'?"),
    "a stage without an agent": ("'Pre-lable'", "did you mean 'Pre-label'?"),
    "Encord down": ("Encord does not answer at http://127.0.0.1:", "ENCORD_DOMAIN"),
    "Redis down, enqueue": ("redis://user:***@127.0.0.1:", "cannot be reached", "broker_url"),
    "Redis down, watch": ("redis://user:***@127.0.0.1:", "cannot be reached", "broker_url"),
    "RabbitMQ down, enqueue": ("amqp://user:***@127.0.0.1:", "cannot be reached", "broker_url"),
    "RabbitMQ down, watch": ("amqp://user:***@127.0.0.1:", "cannot be reached", "broker_url"),
    "the result backend down": ("redis://:***@127.0.0.1:", "cannot be read"),
    "waiting without a result backend": ("no result backend", "result_backend"),
    "a batch of none": ("--batch-size",),
    "a status that there is not": ("--status",),
    "no ids": ("standard input has no ids",),
    "no interval": ("--interval",),
}
#: Those that are click's kind of mistake; click shows the usage before the sentence.
WRONG_USAGE = {
    "a stage without an agent",
    "a batch of none",
    "a status that there is not",
    "no ids",
    "no interval",
}


@pytest.fixture(scope="module")
def answers(quiet_cli: CommandLine, closed_port: int) -> dict[str, Answer]:
    light = quiet_cli.but("light_app")
    closed = f"user:hunter2@127.0.0.1:{closed_port}/"
    no_redis = light.but(CELERY_BROKER_URL=f"redis://{closed}")
    no_rabbit = light.but(CELERY_BROKER_URL=f"amqp://{closed}")
    no_results = light.but(CELERY_RESULT_BACKEND=f"redis://:hunter2@127.0.0.1:{closed_port}/0")
    with SandboxServer.start(tasks=0) as other:
        strange_key = other.private_key
    calls: dict[str, Callable[[], Answer]] = {
        "an app without agents": partial(quiet_cli.but("empty_app"), "stages"),
        "no key": partial(quiet_cli.but(ENCORD_SSH_KEY=None), "stages"),
        "a key that Encord does not know": partial(quiet_cli.but(ENCORD_SSH_KEY=strange_key), "stages"),
        "a project that is not there": partial(quiet_cli.but(CELERY_AGENTS_PROJECT=NOBODY), "stages"),
        "a stage that the project does not have": partial(quiet_cli.but(SECOND_STAGE="Rout"), "stages"),
        "a stage without an agent": partial(light, "enqueue", "--stage", "Pre-lable"),
        "Encord down": partial(light.but(ENCORD_DOMAIN=f"http://127.0.0.1:{closed_port}"), "stages"),
        "Redis down, enqueue": partial(no_redis, "enqueue"),
        "Redis down, watch": partial(no_redis, "watch"),
        "RabbitMQ down, enqueue": partial(no_rabbit, "enqueue"),
        "RabbitMQ down, watch": partial(no_rabbit, "watch"),
        "the result backend down": partial(no_results, "status", "some-id"),
        "waiting without a result backend": partial(
            light.but(CELERY_RESULT_BACKEND=None), "enqueue", "--wait"
        ),
        "a batch of none": partial(light, "enqueue", "--batch-size", "0"),
        "a status that there is not": partial(light, "enqueue", "--status", "LOST"),
        "no ids": partial(light, "status", "-"),
        "no interval": partial(light, "watch", "--interval", "0"),
    }
    return dict(zip(calls, together(*calls.values()), strict=True))


@pytest.mark.parametrize("case", SENTENCES)
def test_one_sentence(case: str, answers: dict[str, Answer]) -> None:
    answer = answers[case]
    assert answer.out == ""
    assert answer.err.splitlines()[-1].startswith("Error: ")
    for part in SENTENCES[case]:
        assert part in answer.err
    for secret in ("Traceback", "hunter2", "PRIVATE KEY"):
        assert secret not in answer.err
    assert answer.code == (2 if case in WRONG_USAGE else 1)


def test_what_cannot_be_waited_for_is_not_sent(answers: dict[str, Answer], quiet_cli: CommandLine) -> None:
    assert answers["waiting without a result backend"].code == 1
    [queue] = quiet_cli.but("light_app")("watch", "--once", "--json").json["queues"]
    assert queue["waiting"] == 0
