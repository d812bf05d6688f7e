"""Run a command that must not outlive whoever started it: ``python guard.py FD COMMAND …``.

FD is the reading end of a pipe whose writing end only the starter holds. When the starter closes it, or dies of
whatever, SIGKILL included, reading ends and the command is stopped: SIGTERM, some grace, then SIGKILL for all that is
left of its process group. So a normal end and a sudden death take the same path, on every POSIX system.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

#: Seconds between SIGTERM and SIGKILL.
GRACE = 5.0


def main() -> int:
    """Run the command until it ends or the starter does; return its exit code."""
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    # Ctrl-C reaches everybody in the terminal's process group, but this process ends with its starter, not before.
    # A function and not SIG_IGN, which the command would inherit.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _go_on)
    process = subprocess.Popen(command, start_new_session=True)
    threading.Thread(target=_stop_with_starter, args=(lifeline, process), daemon=True).start()
    code = process.wait()
    _kill_group(process.pid)
    return code if code >= 0 else 128 - code


def _stop_with_starter(lifeline: int, process: subprocess.Popen[bytes]) -> None:
    while os.read(lifeline, 1):
        pass
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(
        ProcessLookupError, PermissionError
    ):  # nobody is left; macOS says it the second way
        os.killpg(leader, signal.SIGKILL)


def _go_on(_number: int, _frame: FrameType | None) -> None:
    """Do nothing about a signal."""


if __name__ == "__main__":
    sys.exit(main())
