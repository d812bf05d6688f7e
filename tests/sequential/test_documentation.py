"""The program in docs/runner.md does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from celery_agents.sandbox import Project, SandboxServer
from tests.worker.conftest import ROOT

from .conftest import DONE

PAGE = (ROOT / "docs" / "runner.md").read_text()


def test_the_first_program(sandbox: SandboxServer, project: Project, tmp_path: Path) -> None:
    (first, *_) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    program = tmp_path / "pre_label.py"
    program.write_text(first.replace("<project hash>", sandbox.project_hash))
    run = subprocess.run(
        [sys.executable, program, "--max-tasks-per-stage", "10"], check=True, capture_output=True, text=True
    )
    assert run.stdout.split()[:5] == ["stage", "PROCEEDED", "HELD", "GONE", "FAILED"]
    assert project.count_at(DONE) == 10


def test_every_example_that_it_names_is_there() -> None:
    named = set(re.findall(r"`(\w+\.py)`", PAGE)) - {"pre_label.py"}
    there = {path.name for path in (ROOT / "examples" / "other_queues").glob("*.py")}
    assert named == there - {"__init__.py", "agents.py"}
