"""Who takes part in a comparison, and under which conditions."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks import peers

LATENCIES = (0.0, 0.02, 0.1)


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under what they compete."""

    latency: float = 0.0  #: seconds that each call to Encord takes longer
    tls: bool = False
    pool: str = "prefork"
    slots: int = 2  #: processes or threads

    @property
    def connect_latency(self) -> float:
        """TCP and TLS go to Encord and back once each; connecting without TLS is free, as with the peer's figures."""
        return 2 * self.latency if self.tls else 0.0

    def __str__(self) -> str:
        return f"{self.latency * 1000:.0f} ms{', TLS' if self.tls else ''}, {self.pool} {self.slots}"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Who takes part: an app, where it runs, and with what.

    Args:
        name: As in the table.
        app: The module of `benchmarks.apps`.
        agent: The function of `benchmarks.apps.agents`.
        size: Specs in a message; 1 is a spec that is in no list.
        pace: Agent tasks in one run at each of LATENCIES: so many that it takes seconds, and not minutes.
        peer: Whose virtual environment; by default ours.
        options: Further ones of our `stage`.
    """

    name: str
    app: str
    agent: str
    size: int
    pace: tuple[int, int, int]
    peer: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The app's full name."""
        return f"benchmarks.apps.{self.app}"

    @property
    def moves(self) -> bool:
        """Whether its agent tasks leave their stage."""
        return self.app != "bare" or self.agent == "same_calls"

    @property
    def python(self) -> str:
        """The interpreter, whose virtual environment is made where there is none yet."""
        return peers.python_of(self.peer) if self.peer else sys.executable

    def tasks(self, conditions: Conditions) -> int:
        """Return how many agent tasks a run has: a message for each slot at least."""
        number = sum(conditions.latency > each for each in LATENCIES[:-1])
        return max(self.pace[number], self.size * conditions.slots)

    def message_size(self, tasks: int, slots: int) -> int:
        """Return how many of *tasks* go into a message, so that every slot has the same to do."""
        rounds = math.ceil(tasks / (self.size * slots))
        return math.ceil(tasks / (rounds * slots))
