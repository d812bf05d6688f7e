"""The demo as a process of its own, and a way to find everything that descends from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Seconds after which something that should have happened will not.
PATIENCE = 60.0


class RunningDemo:
    """A started demo. Its descendants are known by a mark in their environment, which they all inherit."""

    def __init__(self, logs: Path, *arguments: str) -> None:
        self.logs = logs
        self._mark = f"DEMO_UNDER_TEST={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        self._output = logs.with_suffix(".txt")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "examples.demo", "--logs", str(logs), *arguments],
                cwd=ROOT,
                env={**os.environ, name: value, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # as in a terminal, where Ctrl-C is for the demo's process group
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def alive(self) -> dict[int, str]:
        """Process id and command line of each process of the demo that runs."""
        return {
            int(entry.name): line
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and (line := self._command_line(entry))
        }

    def _command_line(self, process: Path) -> str | None:
        try:
            if self._mark not in (process / "environ").read_text(errors="replace").split("\0"):
                return None
            return (process / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it ended while it was looked at, or is somebody else's
            return None

    def log(self, name: str) -> str:
        """What a child has written so far, to either of its streams."""
        files = [self.logs / f"{name}.{kind}" for kind in ("out", "log")]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        latest = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < latest, f"waited for {what}; alive: {self.alive()}; printed:\n{self.output}"
            time.sleep(0.02)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def kill_everything(self) -> None:
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


StartDemo = Callable[..., RunningDemo]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    started: list[RunningDemo] = []

    def start(*arguments: str) -> RunningDemo:
        started.append(RunningDemo(tmp_path / f"demo{len(started)}", *arguments))
        return started[-1]

    yield start
    for demo in started:
        demo.kill_everything()
