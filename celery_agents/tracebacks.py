"""Describe an exception in bounded text and time, whatever it is: endless, nested, or unable to say what it is.

Python's own ``traceback`` copies the whole text of every exception in a chain. Here each is cut before it is copied,
and of long chains, groups and stacks the ends are shown.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from types import TracebackType

from celery_agents.redaction import excerpt

#: Longest name of an exception's class, in characters.
NAME_LIMIT = 200
#: Longest text of one exception inside a traceback, and of one note or frame, in characters.
TEXT_LIMIT, LINE_LIMIT = 2_000, 500
#: How many exceptions of a traceback are shown: a chain's last ones, and of groups the first ones.
EXCEPTIONS_SHOWN = 20
#: How many of an exception's frames are shown from each end of its stack, and how many of its notes.
FRAMES_SHOWN, NOTES_SHOWN = 20, 10

_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def name_of(error: BaseException) -> str:
    """Return the import path of an exception's class, such as ``builtins.ValueError``, in one line."""
    kind = type(error)
    return " ".join(excerpt(f"{kind.__module__}.{kind.__qualname__}", NAME_LIMIT).split())


def text_of(error: BaseException, limit: int) -> str:
    """Return what an exception says, or its class's name where it says nothing."""
    return excerpt(_said(error), limit) or name_of(error).rpartition(".")[2]


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as trouble:  # noqa: BLE001  (whatever its author did)
        return f"(its text cannot be had: {type(trouble).__name__})"


def traceback_of(error: BaseException, limit: int) -> str:
    """Return the traceback of *error* with those of its causes, as Python would print it, but bounded."""
    return excerpt("".join(_chain(error, itertools.count())), limit)


def clear_frames(error: BaseException) -> None:
    """Let go of what the functions had in hand that *error* and its causes went through: pictures, labels.

    An exception that is kept keeps all of it. Its traceback can be told as before.
    """
    shown = itertools.count()
    cause: BaseException | None = error
    while cause is not None and next(shown) < EXCEPTIONS_SHOWN:
        traceback.clear_frames(cause.__traceback__)
        cause, _ = _cause_of(cause)


def _chain(error: BaseException, shown: Iterator[int]) -> Iterator[str]:
    """Yield the pieces of a traceback, that of the first cause first; *shown* counts the exceptions."""
    links: list[tuple[BaseException, str]] = []
    cause: BaseException | None = error
    joint = ""
    while cause is not None and next(shown) < EXCEPTIONS_SHOWN:
        links.append((cause, joint))
        cause, joint = _cause_of(cause)
    if cause is not None:
        yield "… earlier exceptions left out …\n" + joint
    for link, its_joint in reversed(links):
        yield from _one(link, shown)
        yield its_joint


def _cause_of(error: BaseException) -> tuple[BaseException | None, str]:
    if error.__cause__ is not None:
        return error.__cause__, _CAUSE
    return (None if error.__suppress_context__ else error.__context__), _CONTEXT


def _one(error: BaseException, shown: Iterator[int]) -> Iterator[str]:
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n"
        yield from _frames(error.__traceback__)
    name = name_of(error).removeprefix("builtins.").removeprefix("__main__.")
    said = excerpt(_said(error), TEXT_LIMIT)
    yield f"{name}: {said}\n" if said else f"{name}\n"
    notes = getattr(error, "__notes__", None)
    for note in notes[:NOTES_SHOWN] if isinstance(notes, list) else ():
        yield (excerpt(note, LINE_LIMIT) if isinstance(note, str) else "(a note that is no text)") + "\n"
    if isinstance(error, BaseExceptionGroup):
        yield from _members(error, shown)


def _members(group: BaseExceptionGroup[BaseException], shown: Iterator[int]) -> Iterator[str]:
    for number, member in enumerate(group.exceptions, 1):
        text = "".join(_chain(member, shown))
        if not text:
            yield f"  | … {len(group.exceptions) - number + 1} more …\n"
            return
        yield f"  +---- {number} of {len(group.exceptions)}\n"
        yield from (f"  | {line}" for line in text.splitlines(keepends=True))


def _frames(place: TracebackType) -> Iterator[str]:
    depth = sum(1 for _ in traceback.walk_tb(place))
    left_out = depth - 2 * FRAMES_SHOWN
    if left_out <= 0:
        yield from map(_frame, traceback.extract_tb(place).format())
        return
    yield from map(_frame, traceback.extract_tb(place, limit=FRAMES_SHOWN).format())
    yield f"  … {left_out} frames left out …\n"
    yield from map(_frame, traceback.extract_tb(place, limit=-FRAMES_SHOWN).format())


def _frame(text: str) -> str:
    return text if len(text) <= LINE_LIMIT else excerpt(text, LINE_LIMIT) + "\n"
