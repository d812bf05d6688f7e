"""``agents watch``: queues and workers, once or for as long as somebody looks."""

from __future__ import annotations

import json
import signal
from functools import partial
from typing import Any

from tests.cli.conftest import PATIENCE, CommandLine, together, wait_for_line


def test_once_where_nobody_works(cli_without_messages: CommandLine) -> None:
    cli_without_messages("enqueue", "--batch-size", "6")
    answer, scripted = together(
        partial(cli_without_messages, "watch", "--once"),
        partial(cli_without_messages, "watch", "--once", "--json", "--encord"),
    )
    assert "gpu" in answer.out
    assert "No worker answers for queues 'gpu', 'celery'" in answer.out
    assert answer.code == 0
    gpu = scripted.json["queues"][0]
    assert (gpu["queue"], gpu["waiting"], gpu["workers"]) == ("gpu", 4, [])
    assert gpu["stages"][0]["at_encord"] == 24


def test_it_counts_what_ends_until_ctrl_c(cli: CommandLine) -> None:
    with cli.start("agents", "watch", "--json", "--interval", "0.2") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        cli("enqueue", "--stage", "Pre-label", "--wait")
        last = _first_with(process, ended=5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert first["problem"] is None
    stage = _stage(last, "gpu")["stages"][0]
    assert sum(stage["counts"].values()) == 24
    assert stage["counts"]["FAILED"] > 0
    assert (err, process.returncode) == ("", 0)


def test_a_log_gets_a_line_per_look(cli: CommandLine) -> None:
    with cli.start("agents", "watch", "--interval", "0.2") as process:
        # A look that the worker missed under load says "no worker"; the next one does not.
        line = wait_for_line(process, "1 worker")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert "gpu: 0 waiting, 1 worker; Pre-label 0 running" in line
    assert "\x1b" not in line


def _stage(look: dict[str, Any], queue: str) -> dict[str, Any]:
    found: dict[str, Any]
    [found] = [each for each in look["queues"] if each["queue"] == queue]
    return found


def _first_with(process: Any, ended: int) -> dict[str, Any]:
    for line in process.stdout:
        look: dict[str, Any] = json.loads(line)
        if _stage(look, "gpu")["stages"][0]["ended"] == ended:
            return look
    raise AssertionError("it ended by itself")
