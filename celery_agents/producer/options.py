"""How stages are swept, and how much of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from celery_agents.errors import SetupError
from celery_agents.producer.filters import TaskFilters
from celery_agents.producer.locking import LOCK_SECONDS
from celery_agents.sizes import BatchSize


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """How stages are swept."""

    batch_size: BatchSize | None = None  #: agent tasks in one message; None: the stage's own
    filters: TaskFilters = field(default_factory=TaskFilters)
    force: bool = False  #: send also what other messages have, and heed no lock
    repeats: bool = False  #: another sweep follows soon; this one then needs its ledger, see ``StageSweep``
    new_first: bool = False  #: send what was decided before after what was not, see ``postponing``
    on_skipped: Callable[[Mapping[UUID, str]], object] | None = None  #: told what other messages have
    is_stopping: Callable[[], bool] = lambda: False  #: whether to leave the rest to the next sweep
    sending: Callable[[], AbstractContextManager[object]] = (
        nullcontext  #: entered while a flush is sent and told
    )
    lock_seconds: float = LOCK_SECONDS
    message: Mapping[str, Any] = field(default_factory=dict)  #: options of ``apply_async`` for each message


class Limit:
    """How many agent tasks may still be sent, over all stages; None for any number."""

    def __init__(self, number: int | None) -> None:
        if number is not None and number < 0:
            raise SetupError(f"A limit is not negative: {number}.")
        self._number = self._left = number

    @property
    def left(self) -> float:
        """How many."""
        return float("inf") if self._left is None else self._left

    def reset(self) -> None:
        """Allow all of it again."""
        self._left = self._number

    def use(self, number: int) -> None:
        """Note that so many were sent."""
        if self._left is not None:
            self._left -= number
