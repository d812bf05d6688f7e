"""How much memory processes have, by the kernel's account."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

MEGABYTE = 1024 * 1024


def resident(*processes: int) -> float:
    """Return the megabytes that processes have in memory; one that has ended has none.

    With what a process shares with the one that it was forked from: that becomes its own little by little, which is no
    growth.
    """
    return sum(map(_resident, processes)) / MEGABYTE


def _resident(process: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
    return 0
