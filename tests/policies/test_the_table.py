"""Each line of docs/redis_task_queue.md names a test, and the test is there."""

from __future__ import annotations

import re

from tests.worker.conftest import ROOT


def test_each_line_names_a_test_that_is_there() -> None:
    lines = (ROOT / "docs" / "redis_task_queue.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and "---" not in line][1:]
    named = [re.findall(r"`(tests/\S+\.py)::(\w+)`", row) for row in rows]
    assert all(len(each) == 1 for each in named)
    missing = [name for ((path, name),) in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []
