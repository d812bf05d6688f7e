"""The demo as a process of its own, and a way to find everything that descends from it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import threading
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

    def __init__(self, logs: Path, *arguments: str, at_terminal: bool = False) -> None:
        self.logs = logs
        self._mark = f"DEMO_UNDER_TEST={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        self._output = bytearray()
        self._screen, terminal = os.openpty() if at_terminal else os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.demo", "--logs", str(logs), *arguments],
            cwd=ROOT,
            env={**os.environ, name: value, "PYTHONUNBUFFERED": "1", "TERM": "xterm"},
            stdin=terminal if at_terminal else subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
            # Its own session, as in a terminal, where Ctrl-C is for the demo's process group and not for the tests'.
            start_new_session=True,
            preexec_fn=_take_terminal if at_terminal else None,  # noqa: PLW1509 - one system call
        )
        os.close(terminal)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # what a terminal says when its last program is gone
            while text := os.read(self._screen, 65536):
                self._output += text

    @property
    def output(self) -> str:
        return self._output.decode(errors="replace")

    def press(self, keys: str) -> None:
        """Type at the terminal."""
        os.write(self._screen, keys.encode())

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
            assert time.monotonic() < latest, (
                f"waited for {what}; alive: {self.alive()}; printed:\n{self.output}"
            )
            time.sleep(0.02)

    def wait(self) -> int:
        """Wait for the demo to end, and for what it printed; its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(1.0)  # children that are still being stopped may hold the other end
        return code

    def kill_everything(self) -> None:
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        os.close(self._screen)


def _take_terminal() -> None:
    """Make the terminal at standard input the one whose Ctrl-C this process gets."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


StartDemo = Callable[..., RunningDemo]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    started: list[RunningDemo] = []

    def start(*arguments: str, at_terminal: bool = False) -> RunningDemo:
        logs = tmp_path / f"demo{len(started)}"
        started.append(RunningDemo(logs, *arguments, at_terminal=at_terminal))
        return started[-1]

    yield start
    for demo in started:
        demo.kill_everything()
