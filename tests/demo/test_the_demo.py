"""The demo as a stranger runs it, and what it says when something is not as it must be."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path

import pytest

from tests.demo.conftest import RunningDemo, StartDemo

pytestmark = pytest.mark.slow


def test_300_agent_tasks_go_through_two_stages_and_agree_with_the_sandbox_s_audit(
    start_demo: StartDemo,
) -> None:
    demo = start_demo()

    assert demo.wait() == 0, demo.output
    assert "every agent task was moved exactly once: 300 from Pre-label and" in demo.output
    (labelled,) = re.findall(r"Pre-label +│ labelled +│ PROCEEDED +│ +(\d+) ", demo.output)
    assert f"{labelled} from Route. {labelled} boxes are saved, each where it was drawn." in demo.output
    assert re.search(r"│ nothing found +│ PROCEEDED", demo.output)
    assert re.search(r"│ small +│ PROCEEDED", demo.output)
    assert "Next, with a project of your own" in demo.output
    for node in ("node1", "node2"):
        assert re.search(r"succeeded in [\d.]+s", demo.log(node)), f"{node} had nothing to do"
    assert demo.alive() == {}


def test_a_move_by_somebody_else_is_shown_and_makes_the_demo_fail(start_demo: StartDemo) -> None:
    demo = start_demo("--tasks", "40")

    # When somebody moves an agent task while its agent runs
    demo.wait_until(lambda: demo.log("sandbox"), "the sandbox")
    make_trouble(demo, "tasks.actions:moved=1,nth=1")

    # Then the demo tells the difference, and fails
    assert demo.wait() == 1, demo.output
    assert re.search(r"✗ Pre-label: \S+ is GONE", demo.output)
    assert demo.alive() == {}


def test_a_child_that_cannot_start_is_told_with_the_end_of_its_log(
    start_demo: StartDemo, tmp_path: Path
) -> None:
    # Given a folder where the sandbox wants to write its key
    (tmp_path / "demo0" / "sandbox-key").mkdir(parents=True)

    demo = start_demo("--tasks", "40")

    assert demo.wait() == 1
    assert "The demo failed: sandbox ended with exit code" in demo.output
    assert "sandbox-key' is a directory" in demo.log("sandbox")
    assert demo.log("sandbox").splitlines()[-1] in demo.output
    assert demo.alive() == {}


def test_a_project_without_data_units_is_refused(start_demo: StartDemo) -> None:
    demo = start_demo("--tasks", "0")

    assert demo.wait() == 2
    assert "argument --tasks: give a number of 1 or more, not 0" in demo.output


def make_trouble(demo: RunningDemo, fault: str) -> None:
    url = json.loads(demo.log("sandbox").splitlines()[0])["url"]
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/sandbox/faults", json.dumps(fault).encode(), headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        assert answer.status == 200
