"""What a process and all below it use, as Linux tells in /proc: seconds of CPU, and memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
#: Seconds between two looks at the memory: each costs the process a moment.
_INTERVAL = 0.25
# Fields after the name in /proc/PID/stat, see proc_pid_stat(5).
_PARENT, _USER, _CHILDREN_SYSTEM = 1, 11, 14


@dataclass(slots=True)
class Peak:
    """The most memory that was seen, in bytes."""

    memory: int = 0


def members(root: int) -> list[int]:
    """Return the processes of the tree below *root*, itself included."""
    parents = {pid: int(fields[_PARENT]) for pid in _everybody() if (fields := _fields(pid))}
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def cpu(root: int) -> float:
    """Return the seconds of CPU that a tree has used, those of its members that have ended included."""
    used = (_fields(pid)[_USER : _CHILDREN_SYSTEM + 1] for pid in members(root))
    return sum(int(ticks) for fields in used for ticks in fields) / _TICKS


def memory(root: int) -> int:
    """Return the bytes of memory that a tree holds; what members share counts once."""
    return sum(_proportional(pid) for pid in members(root))


@contextmanager
def watched(root: int) -> Iterator[Peak]:
    """Look at a tree's memory now and then."""
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        peak.memory = max(peak.memory, memory(root))

    def look_again_and_again() -> None:
        while not ended.wait(_INTERVAL):
            look()

    look()
    thread = threading.Thread(target=look_again_and_again)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
        look()


def _everybody() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _fields(pid: int) -> list[str]:
    """What /proc/PID/stat says after the process's name; nothing where it has ended."""
    with suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []


def _proportional(pid: int) -> int:
    with suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
