"""Where the time of our worker's processes goes: a profile of each, into the folder PROFILE."""

from __future__ import annotations

import cProfile
import os
from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown


def connect() -> None:
    """Profile each pool process from its start to its end, where that is asked for."""
    if folder := os.environ.get("PROFILE"):
        profile = cProfile.Profile()

        def begin(**_: Any) -> None:
            profile.enable()

        def end(pid: int, **_: Any) -> None:
            profile.disable()
            profile.dump_stats(f"{folder}/{os.environ['AGENT']}-{pid}.prof")

        worker_process_init.connect(begin, weak=False)
        worker_process_shutdown.connect(end, weak=False)
