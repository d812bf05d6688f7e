"""``agents enqueue``: what is sent, what is said about it, and waiting for it."""

from __future__ import annotations

import os
import pty
import signal
from functools import partial
from uuid import UUID

from celery_agents.sandbox import SandboxServer
from tests.cli.conftest import PATIENCE, CommandLine, together


def test_what_is_sent_and_that_nobody_listens(cli_without_messages: CommandLine) -> None:
    answer = cli_without_messages("enqueue", "--batch-size", "10")
    header, _, row = answer.out.splitlines()
    assert header.split() == ["stage", "agent", "tasks", "messages", "queue"]
    assert row.split() == ["Pre-label", "24", "3", "gpu"]
    assert "Warning: messages wait: no worker answers for queue 'gpu'" in answer.err
    assert "celery -A tests.cli.app worker -Q gpu" in answer.err
    assert "celery -A tests.cli.app agents status " in answer.err
    assert answer.code == 0


def test_ids_alone_can_be_piped_to_status(cli_without_messages: CommandLine) -> None:
    ids = cli_without_messages("enqueue", "--ids").out
    assert len([UUID(each) for each in ids.split()]) == 5
    answer = cli_without_messages.but("light_app")("status", "-", "--json", stdin=ids)
    assert [each["id"] for each in answer.json] == ids.split()
    assert answer.code == 3


def test_as_json_with_a_limit(cli_without_messages: CommandLine) -> None:
    answer = cli_without_messages("enqueue", "--json", "--limit", "7", "--stage", "Pre-label")
    [sent] = answer.json["sent"]
    assert (sent["stage"], sent["queue"], sent["agent_tasks"], sent["messages"]) == ("Pre-label", "gpu", 7, 2)
    assert len(answer.json["ids"]) == 2


def test_filters_choose(cli_without_messages: CommandLine, sandbox: SandboxServer) -> None:
    units = {
        unit.title: unit.data_hash for unit in next(iter(sandbox.state.datasets.values())).units.values()
    }
    videos = [title for title in units if title.startswith("video")]
    hashes = [argument for title in videos for argument in ("--data-hash", str(units[title]))]
    line = cli_without_messages
    by_title, by_hash = together(
        partial(line, "enqueue", "--json", "--title", "video"), partial(line, "enqueue", "--json", *hashes)
    )
    assert by_title.json["sent"][0]["agent_tasks"] == len(videos)
    assert by_hash.json["sent"][0]["agent_tasks"] == len(videos)


def test_nothing_to_do_is_said_and_is_no_error(quiet_cli: CommandLine) -> None:
    shown, scripted = together(
        partial(quiet_cli, "enqueue", "--stage", "Pre-label", "--status", "COMPLETED"),
        partial(quiet_cli, "enqueue", "--stage", "Route", "--json"),
    )
    assert shown.out == "Nothing to do: no agent task that matches waits at Pre-label.\n"
    assert (shown.err, shown.code) == ("", 0)
    assert (scripted.json, scripted.code) == ({"sent": [], "ids": []}, 0)


def test_a_timeout_is_told_from_a_failure(cli_without_messages: CommandLine) -> None:
    answer = cli_without_messages("enqueue", "--limit", "3", "--timeout", "0.1", "--json")
    assert answer.json["status"] == "QUEUED"
    assert answer.json["progress"]["total"] == 3
    assert "not all have ended after 0.1 s" in answer.err
    assert answer.code == 3


def test_ctrl_c_while_waiting_says_that_the_work_goes_on(cli_without_messages: CommandLine) -> None:
    with cli_without_messages.start("agents", "enqueue", "--wait", "--limit", "3") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "Waiting" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert "the work goes on" in err
    assert "agents status" in err
    assert "Traceback" not in err
    assert process.returncode == 130


def test_a_terminal_gets_a_bar(cli_without_messages: CommandLine) -> None:
    ours, theirs = pty.openpty()
    with cli_without_messages.start("agents", "enqueue", "--limit", "3", stderr=theirs):
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)
    assert b"Sending" in shown
    assert "━".encode() in shown
    assert b"\x1b[" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other side has closed
        return b""


def test_waiting_ends_with_what_became_of_it(cli: CommandLine, fresh_sandbox: SandboxServer) -> None:
    titles = [unit.title for unit in next(iter(fresh_sandbox.state.datasets.values())).units.values()]
    failing = sum(title.startswith("video") for title in titles)
    held = sum(title.startswith("pdf") for title in titles)
    answer = cli("enqueue", "--stage", "Pre-label", "--wait")
    rows = [line.split() for line in answer.out.splitlines()]
    assert ["Pre-label", "PROCEEDED", "labelled", str(24 - failing - held)] in rows
    assert ["Pre-label", "HELD", "-", str(held)] in rows
    assert ["Pre-label", "FAILED", "-", str(failing)] in rows
    assert "ValueError: no box in video" in answer.out
    assert "PARTIAL" in answer.out
    assert "Waiting: 24 of 24 agent tasks" in answer.err
    assert answer.code == 1
    # Those that PROCEEDED wait at the next stage now, whose agent fails none.
    second = cli("enqueue", "--stage", "Route", "--wait", "--json")
    assert second.json["status"] == "SUCCEEDED"
    assert second.json["counts"] == {"PROCEEDED": 24 - failing - held}
    assert second.json["outcomes"][0]["pathway"] == "small"
    assert second.code == 0
