"""What a worker does besides running tasks: which of these modules are told which of Celery's signals.

A module is imported when Celery first tells it something, so that declaring agents, as whoever only sends does too,
imports none of them.
"""

from __future__ import annotations

from functools import cache, partial
from importlib import import_module
from typing import Any

from celery import signals

#: Module -> the signals that it is told; its function for one has that one's name after ``on_``.
TOLD = {
    "startup": ("celeryd_init", "celeryd_after_setup"),
    "releasing": ("task_revoked", "task_unknown"),
    "cancelling": ("worker_init",),
    "leaving": ("worker_process_shutdown",),
    "listening": ("worker_init",),
    "visibility": ("worker_init",),
    "stuck": ("worker_init",),
    "resources": ("worker_init", "worker_process_init", "worker_process_shutdown", "worker_shutdown"),
}


@cache  # each stage asks for it
def connect() -> None:
    """Let the modules take part in every worker from now on; calling it again changes nothing."""
    signals.worker_init.connect(_on_worker_init, dispatch_uid=__name__, weak=False)
    for module, names in TOLD.items():
        for name in names:
            receiver = partial(_tell, module, name)
            getattr(signals, name).connect(receiver, dispatch_uid=f"{__name__}.{module}", weak=False)


def _on_worker_init(**_: Any) -> None:
    # All of them, and before the pool forks: one that were imported hours later might be of the next release.
    for module in TOLD:
        import_module(f"{__name__}.{module}")


def _tell(module: str, name: str, /, **told: Any) -> None:
    getattr(import_module(f"{__name__}.{module}"), f"on_{name}")(**told)
