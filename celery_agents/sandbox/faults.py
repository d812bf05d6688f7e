"""Scripted trouble: what goes wrong, with which calls, how often. Reproducible from a seed."""

from __future__ import annotations

import dataclasses
import random
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from threading import Lock
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of trouble. Where several faults hit one call, delays add up and the first of the rest wins."""

    call: str = "*"
    """Names of calls, with `*` for any text: `tasks.actions`, `labels.*`."""

    # When
    rate: float = 1.0
    """The chance that a matching call is hit."""
    nth: tuple[int, ...] = ()
    """Only these matching calls, counted from 1."""
    times: int | None = None
    """Hit at most so many calls."""

    # What
    latency: float = 0.0
    """Seconds to wait before the call is looked at."""
    jitter: float = 0.0
    """Up to so many seconds more."""
    status: int | None = None
    """Answer with this HTTP status, and do nothing."""
    retry_after: str | None = None
    """The `Retry-After` header that goes with it."""
    html: bool = False
    """Answer like a proxy in front of the API, in HTML."""
    error: str | None = None
    """For legacy calls: answer with this error name, such as RATE_LIMIT_ERROR, and do nothing."""
    drop: str | None = None
    """Close the connection without an answer: `before` or `after` the call took effect."""
    slow: float = 0.0
    """Seconds over which the body of the answer trickles in."""
    moved: int = 0
    """For calls on tasks: so many of them are moved by somebody else just before."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is a chance between 0 and 1, not {self.rate}")
        if self.drop not in (None, "before", "after"):
            raise ValueError(f"drop is 'before' or 'after', not {self.drop!r}")
        if self.status is not None and not 400 <= self.status <= 599:
            raise ValueError(f"status is an error between 400 and 599, not {self.status}")
        if self.status is None and (self.html or self.retry_after is not None):
            raise ValueError("html and retry_after need a status")
        if not any((*self._delays, self.status, self.error, self.drop, self.moved)):
            raise ValueError("the fault says when but not what: latency, status, error, drop, slow or moved")

    @property
    def _delays(self) -> tuple[float, ...]:
        return self.latency, self.jitter, self.slow

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read `tasks.actions:status=503,rate=0.05`. Raises ValueError naming what is wrong.

        >>> Fault.parse("labels.save:drop=after,nth=2+5").nth
        (2, 5)
        """
        call, separator, options = text.rpartition(":")
        pairs = [option.partition("=") for option in options.split(",")]
        return cls.from_json({"call": call if separator else "*", **{key: value for key, _, value in pairs}})

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fault:
        """Build a fault of JSON values or their text. Raises ValueError naming what is wrong."""
        unknown = sorted(set(values) - set(_READERS))
        if unknown:
            raise ValueError(f"a fault has no option {unknown[0]!r}, its options are {', '.join(_READERS)}")
        try:
            return cls(**{key: _READERS[key](value) for key, value in values.items() if value is not None})
        except TypeError as error:
            raise ValueError(str(error)) from error

    def to_json(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            field.name: given[field.name]
            for field in dataclasses.fields(self)
            if given[field.name] != field.default
        }


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What happens to one call."""

    delay: float = 0.0
    slow: float = 0.0
    drop: str | None = None
    moved: int = 0
    answer: Fault | None = None
    """The fault whose status or error is the answer."""


NO_TROUBLE = Trouble()


class Faults:
    """The faults in force. Safe to change while the server runs."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self._seed = seed
        self._lock = Lock()
        self._active: list[_Active] = []
        self.add(*faults)

    def __len__(self) -> int:
        return len(self._active)

    def add(self, *faults: Fault) -> None:
        """Put faults in force, after those that are."""
        with self._lock:
            for fault in faults:
                salt = zlib.crc32(repr((self._seed, len(self._active), fault)).encode())
                self._active.append(_Active(fault, random.Random(salt)))

    def clear(self) -> None:
        """Lift all faults."""
        with self._lock:
            self._active.clear()

    def to_json(self) -> list[dict[str, Any]]:
        """The faults in force, with how many calls each one matched and hit."""
        with self._lock:
            return [{**a.fault.to_json(), "matched": a.matched, "hit": a.hit} for a in self._active]

    def decide(self, call: str) -> Trouble:
        """What happens to the next call of this name."""
        if not self._active:
            return NO_TROUBLE
        with self._lock:
            hits = [active for active in self._active if active.strikes(call)]
            return _combine(hits) if hits else NO_TROUBLE


class _Active:
    """A fault in force, with its own dice so that others do not change what it hits."""

    def __init__(self, fault: Fault, dice: random.Random) -> None:
        self.fault = fault
        self.dice = dice
        self.matched = 0
        self.hit = 0

    def strikes(self, call: str) -> bool:
        fault = self.fault
        if not fnmatchcase(call, fault.call):
            return False
        self.matched += 1
        # The dice are thrown for every match, so that `nth` and `times` do not shift what follows.
        lucky = self.dice.random() >= fault.rate
        if lucky or (fault.nth and self.matched not in fault.nth):
            return False
        if fault.times is not None and self.hit >= fault.times:
            return False
        self.hit += 1
        return True


def _combine(hits: list[_Active]) -> Trouble:
    faults = [active.fault for active in hits]
    return Trouble(
        delay=sum(a.fault.latency + a.dice.uniform(0, a.fault.jitter) for a in hits),
        slow=sum(fault.slow for fault in faults),
        drop=next((fault.drop for fault in faults if fault.drop), None),
        moved=max(fault.moved for fault in faults),
        answer=next((fault for fault in faults if fault.status or fault.error), None),
    )


def _flag(value: Any) -> bool:
    return str(value).lower() in ("1", "true", "yes", "")


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in (value.split("+") if isinstance(value, str) else value))


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "call": str,
    "rate": float,
    "nth": _numbers,
    "times": int,
    "latency": float,
    "jitter": float,
    "status": int,
    "retry_after": str,
    "html": _flag,
    "error": str,
    "drop": str,
    "slow": float,
    "moved": int,
}
