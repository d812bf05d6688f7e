"""The Lua scripts, and for each a typed call: a class whose fields are the names that its script uses.

Fields of type ``Key`` become KEYS, the others ARGV, in this order; ``rest`` takes what is left. The lines that bind the
names are made from the fields, so that neither side counts positions. A script is sent as ``prelude.lua``, those lines,
and its own file, in which a line ``-- include claims`` stands for ``claims.lua``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from operator import itemgetter
from typing import Any, NewType, dataclass_transform, get_type_hints
from uuid import UUID

from celery_agents.ledger.keys import Key

#: UUIDs as one text of 32 digits each.
Packed = NewType("Packed", str)


def packed(uuids: Iterable[UUID]) -> Packed:
    """Return *uuids* as one text; thousands of arguments would cost more than what is done with them."""
    # Half of what each UUID's own hex costs.
    return Packed(b"".join([each.int.to_bytes(16) for each in uuids]).hex())


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis gets it, and which fields of its call go where."""

    text: str
    sha: str
    keys: Callable[[dict[str, Any]], tuple[Key, ...]]  #: of a call's fields, what goes into KEYS
    arguments: Callable[[dict[str, Any]], tuple[Any, ...]]  #: of them, what goes into ARGV, without ``rest``
    flags: tuple[int, ...]  #: which of these are booleans
    has_rest: bool


# Its subclasses are no dataclasses, though type checkers take them for some: to define one takes a fifth of a
# millisecond, so that the thirty of them would be a quarter of what it takes to import the ledger.
@dataclass_transform(eq_default=False, kw_only_default=True)
class Call:
    """One call of the script that has this class's name; its fields are given by name."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__ = fields

    @classmethod
    def script(cls) -> Script:
        """Return the script of this call."""
        if cls not in _SCRIPTS:
            _SCRIPTS[cls] = _load(cls)
        return _SCRIPTS[cls]

    @property
    def keys(self) -> tuple[Key, ...]:
        """What goes into KEYS."""
        return self.script().keys(vars(self))

    @property
    def arguments(self) -> list[str | int]:
        """What goes into ARGV."""
        script = self.script()
        values = [*script.arguments(vars(self))]
        for place in script.flags:
            values[place] = int(values[place])
        return [*values, *self.rest] if script.has_rest else values  # type: ignore[attr-defined]  # of those that have it


#: A line that stands for other files. Where a script ends before it, what these define costs nothing.
_INCLUDE = re.compile(r"^-- include (.+)$", re.MULTILINE)

#: Scripts that were read, by their calls.
_SCRIPTS: dict[type[Call], Script] = {}


def _load(kind: type[Call]) -> Script:
    """Read a script and put before it what all share, and the names of its keys and arguments."""
    hints = get_type_hints(kind)
    keys = tuple(name for name, hint in hints.items() if hint is Key)
    arguments = tuple(name for name, hint in hints.items() if hint is not Key)
    file = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    prelude, own = (_text(each) for each in ("prelude", file))
    bindings = [
        *(f"local {name} = KEYS[{number}]" for number, name in enumerate(keys, 1)),
        *(f"local {name} = {_read(hints[name], number)}" for number, name in enumerate(arguments, 1)),
    ]
    text = "\n".join([prelude, *bindings, _INCLUDE.sub(_included, own)])
    written = [each for each in arguments if each != "rest"]
    return Script(
        text,
        hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
        _getter(keys),
        _getter(written),
        tuple(place for place, each in enumerate(written) if hints[each] is bool),
        has_rest="rest" in arguments,
    )


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(f"{name}.lua").read_text("utf-8")


def _included(names: re.Match[str]) -> str:
    return "\n".join(_text(each) for each in names[1].split(", "))


def _read(kind: Any, number: int) -> str:
    """Return the Lua that reads an argument of this type."""
    readers = {int: "tonumber(ARGV[{}])", bool: "ARGV[{}] == '1'", str: "ARGV[{}]", Packed: "ARGV[{}]"}
    return readers.get(kind, "{}").format(number)  # of what is left only the place is known


def _getter(names: Sequence[str]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda fields: tuple(fields[name] for name in names)
