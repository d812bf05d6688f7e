"""``agents check``: every check alone, nothing left out because something else is down."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from celery import Celery

from celery_agents import QueueRunner
from celery_agents.cli import clocks, settings
from celery_agents.cli.findings import Finding, Section, Verdict, ok, run
from celery_agents.sandbox import SandboxServer
from celery_agents.task import StageTask
from tests.cli.conftest import Answer, CommandLine, together


def found(answer: Answer, subject: str) -> list[dict[str, Any]]:
    return [finding for finding in answer.json["findings"] if finding["subject"] == subject]


def verdicts(answer: Answer, subject: str) -> list[str]:
    return [finding["verdict"] for finding in found(answer, subject)]


def test_everything_in_place(cli: CommandLine) -> None:
    cli = cli.but(LEDGER_URL=cli.environment["CELERY_BROKER_URL"])
    shown, scripted = together(partial(cli, "check"), partial(cli, "check", "--json"))
    assert "Everything is in place." in shown.out
    assert "labelled → Route" in shown.out
    assert "queue 'gpu'" in shown.out
    assert "✗" not in shown.out
    assert scripted.json["ok"] is True
    for subject in ("key", "project", "stage", "pathways", "clock", "broker", "workers", "backend", "ledger"):
        assert set(verdicts(scripted, subject)) == {"ok"}, subject
    assert (shown.code, scripted.code) == (0, 0)


@pytest.fixture(scope="module")
def answers(quiet_cli: CommandLine, closed_port: int) -> dict[str, Answer]:
    """What is said in several situations, asked for at once."""
    dead = f"redis://:hunter2@127.0.0.1:{closed_port}/0"
    all_down = quiet_cli.but(
        ENCORD_SSH_KEY=None, CELERY_BROKER_URL=dead, CELERY_RESULT_BACKEND=dead, LEDGER_URL=dead
    )
    with SandboxServer.start(tasks=1, clock=tomorrow) as ahead:
        calls = {
            "nobody listens": partial(quiet_cli, "check", "--json"),
            "all down": partial(all_down, "check", "--json"),
            "misspelt": partial(quiet_cli.but(SECOND_STAGE="Rout"), "check"),
            "clock": partial(quiet_cli.but(**ahead.env()), "check", "--json"),
        }
        return dict(zip(calls, together(*calls.values()), strict=True))


def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def test_nobody_listens_is_a_warning_with_the_command(answers: dict[str, Answer]) -> None:
    answer = answers["nobody listens"]
    assert verdicts(answer, "workers") == ["warning", "warning"]
    advice = [finding["advice"] for finding in found(answer, "workers")]
    assert sorted(advice) == [
        f"start one: celery -A tests.cli.app worker -Q {queue}" for queue in ("celery", "gpu")
    ]
    assert verdicts(answer, "ledger") == ["warning"]
    assert answer.code == 0


def test_all_down(answers: dict[str, Answer]) -> None:
    answer = answers["all down"]
    assert [verdicts(answer, each) for each in ("key", "broker", "backend", "ledger")] == [["failed"]] * 4
    assert answer.json["ok"] is False
    assert answer.code == 1
    assert "hunter2" not in answer.out
    assert answer.err == ""


def test_a_misspelt_stage_is_found_beside_the_right_one(answers: dict[str, Answer]) -> None:
    answer = answers["misspelt"]
    assert "✓ stage" in answer.out
    assert "✗ stage" in answer.out
    assert "did you mean 'Route'?" in answer.out
    assert "Route: no agent here serves it" in answer.out
    assert answer.code == 1


def test_a_worker_that_does_not_know_the_task_fails_the_check(mistaken_cli: CommandLine) -> None:
    answer = mistaken_cli("check", "--json")
    [unknown] = [each for each in found(answer, "workers") if each["verdict"] == "failed"]
    assert "does not know" in unknown["text"]
    assert "restart it" in unknown["advice"]
    assert answer.code == 1


def test_a_signature_that_looks_old_points_at_the_clock(answers: dict[str, Answer]) -> None:
    answer = answers["clock"]
    assert verdicts(answer, "key") == ["failed"]
    assert "see clock" in found(answer, "key")[0]["advice"]
    # The Date header of the sandbox comes from the real clock; what is made of it is the next test's.
    assert "ok" in verdicts(answer, "clock")


@pytest.mark.parametrize(
    ("ahead", "verdict"),
    [
        (0, Verdict.OK),
        (45, Verdict.WARNING),
        (-45, Verdict.WARNING),
        (400, Verdict.FAILED),
        (-400, Verdict.FAILED),
    ],
)
def test_clocks_are_judged_by_how_far_they_differ(ahead: float, verdict: Verdict) -> None:
    finding = clocks.compare("Encord", lambda: time.time() - ahead)
    assert finding is not None
    assert finding.verdict is verdict
    if ahead:
        assert ("ahead of" in finding.text) is (ahead > 0)


def test_a_clock_that_cannot_be_read_is_no_finding() -> None:
    assert clocks.compare("Encord", lambda: None) is None
    assert clocks.encords("http://127.0.0.1:1") is None


def section(title: str, look: Any) -> Section:
    return Section(title, look, lambda error: f"{type(error).__name__}: {error}")


def test_sections_that_raise_or_hang_do_not_cost_the_others() -> None:
    never = threading.Event()

    def raises() -> Iterator[Finding]:
        yield ok("first", "fine")
        raise LookupError("gone")

    def hangs() -> Iterator[Finding]:
        yield ok("first", "fine")
        never.wait()

    sections = [
        section("Raising", raises),
        section("Hanging", hangs),
        section("Fine", lambda: [ok("it", "works")]),
    ]
    raised, hung, fine = (findings for _, findings in run(sections, seconds=0.2))
    never.set()
    assert [each.verdict for each in raised] == [Verdict.OK, Verdict.FAILED]
    assert "LookupError: gone" in raised[1].text
    assert [each.verdict for each in hung] == [Verdict.OK, Verdict.FAILED]
    assert "no answer within 0.2 s" in hung[1].text
    assert [each.verdict for each in fine] == [Verdict.OK]


#: A value for each setting under which its rule is broken.
BROKEN: dict[str, dict[str, Any]] = {
    "accept_content": {"accept_content": ["json", "pickle"]},
    "task_serializer": {"task_annotations": {"*": {"serializer": "pickle"}}},
    "result_serializer": {"result_serializer": "pickle"},
    "task_ignore_result": {"task_annotations": {"*": {"ignore_result": True}}},
    "task_always_eager": {"task_always_eager": True},
    "task_acks_late": {"task_annotations": {"*": {"acks_late": False}}},
    "task_reject_on_worker_lost": {"task_annotations": {"*": {"reject_on_worker_lost": False}}},
    "task_track_started": {"task_annotations": {"*": {"track_started": False}}},
    "worker_prefetch_multiplier": {"worker_prefetch_multiplier": 4},
    "result_expires": {"result_expires": None},
    "worker_send_task_events": {"worker_send_task_events": False},
}
RIGHT = {"worker_prefetch_multiplier": 1, "worker_send_task_events": True}


def configured(**conf: Any) -> list[Finding]:
    app = Celery("configured", broker="memory://", set_as_current=False)
    app.conf.update({**RIGHT, **conf})
    runner = QueueRunner("7a4d0000-0000-4000-8000-000000000000", app=app)
    runner.stage("Pre-label")(lambda: None)
    app.finalize()
    tasks = [task for task in app.tasks.values() if isinstance(task, StageTask)]
    return list(settings.look(app, tasks))


def test_every_rule_has_a_case() -> None:
    assert [rule.setting for rule in settings.RULES] == list(BROKEN)


@pytest.mark.parametrize("setting", BROKEN)
def test_a_broken_setting_is_found(setting: str) -> None:
    [finding] = configured(**BROKEN[setting])
    assert finding.subject == setting
    assert finding.verdict is not Verdict.OK
    assert finding.advice is not None


def test_right_settings_are_left_alone() -> None:
    assert [finding.verdict for finding in configured()] == [Verdict.OK]
