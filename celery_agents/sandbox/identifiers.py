"""Identifiers and instants that a seed and a clock reproduce."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Answers the present instant, aware."""


def utc_now() -> datetime:
    """The present instant in UTC."""
    return datetime.now(UTC)


class Identifiers:
    """Hands out UUIDs and feature hashes that are the same for the same seed and order of asking."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def uuid(self) -> str:
        """A random-looking version 4 UUID in its usual text form."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def feature_hash(self) -> str:
        """Eight hexadecimal digits, as ontologies name their features."""
        return f"{self._random.getrandbits(32):08x}"

    def number(self) -> int:
        """A number below 2**31, used as the seed of one piece of media."""
        return self._random.getrandbits(31)
