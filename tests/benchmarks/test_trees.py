"""`benchmarks.trees` counts a process and all below it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks import trees

#: Starts a child that computes for a while and one that stays, tells of it, and stays too.
PARENT = """
import subprocess, sys, time
busy = "import time\\nwhile time.process_time() < 0.25: pass"
subprocess.run([sys.executable, "-c", busy], check=True)
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.communicate("\n")


def test_a_tree_has_its_members_and_the_cpu_of_those_that_have_ended(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    child = int(parent.stdout.readline())

    assert trees.members(parent.pid) == [parent.pid, child]
    # The kernel counts in ticks of 10 ms, and cuts off what is less: of user and of system time.
    assert trees.cpu(parent.pid) >= 0.2
    with trees.watched(parent.pid) as peak:
        pass
    assert peak.memory >= trees.memory(child) > 0
