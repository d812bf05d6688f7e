"""The Lua scripts, and for each a typed call: a class whose fields are the names that its script uses.

Fields of type ``Key`` become KEYS, the others ARGV, in this order; ``rest`` takes what is left. The first lines of a
script, which bind the names, are made from the fields, so that neither side counts positions.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, NewType, get_type_hints
from uuid import UUID

from celery_agents.ledger.keys import Key

#: UUIDs as one text of 32 digits each.
Packed = NewType("Packed", str)


def packed(uuids: Iterable[UUID]) -> Packed:
    """Return *uuids* as one text; thousands of arguments would cost more than what is done with them."""
    return Packed("".join([each.hex for each in uuids]))


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis gets it."""

    text: str
    sha: str


@dataclass(frozen=True)
class Call:
    """One call of the script that has this class's name."""

    @classmethod
    @functools.cache
    def script(cls) -> Script:
        """Return the script: what all share, the names of its keys and arguments, and its own lines."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        folder = resources.files(__name__)
        own, shared = (folder.joinpath(f"{each}.lua").read_text("utf-8") for each in (name, "prelude"))
        text = "\n".join([shared, *cls._bindings(), own])
        return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    @classmethod
    def _bindings(cls) -> list[str]:
        keys, arguments = _split_fields(cls)
        hints = get_type_hints(cls)
        return [
            *(f"local {name} = KEYS[{number}]" for number, name in enumerate(keys, 1)),
            *(f"local {name} = {_read(hints[name], number)}" for number, name in enumerate(arguments, 1)),
        ]

    @property
    def keys(self) -> list[Key]:
        """What goes into KEYS."""
        return [getattr(self, name) for name in _split_fields(type(self))[0]]

    @property
    def arguments(self) -> list[str | int]:
        """What goes into ARGV."""
        values = (getattr(self, name) for name in _split_fields(type(self))[1])
        return [each for value in values for each in _written(value)]


@functools.cache
def _split_fields(kind: type[Call]) -> tuple[list[str], list[str]]:
    """Return the names of the keys and those of the arguments."""
    names, hints = [each.name for each in fields(kind)], get_type_hints(kind)
    return [name for name in names if hints[name] is Key], [name for name in names if hints[name] is not Key]


def _read(kind: Any, number: int) -> str:
    """Return the Lua that reads an argument of this type."""
    readers = {int: "tonumber(ARGV[{}])", bool: "ARGV[{}] == '1'", str: "ARGV[{}]", Packed: "split(ARGV[{}])"}
    return readers.get(kind, "{}").format(number)  # of what is left only the place is known


def _written(value: Any) -> tuple[str | int, ...]:
    if isinstance(value, tuple):
        return value
    return (int(value),) if isinstance(value, bool) else (value,)
