"""An exception is described in bounded text and time, whatever it is."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

import pytest

from celery_agents.messages import DETAIL_LIMIT, TRACEBACK_LIMIT, TaskError
from celery_agents.tracebacks import NAME_LIMIT

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error from cause
    return caught.value


def while_handling(first: Exception, second: Exception) -> Exception:
    def handle() -> None:
        try:
            raise first
        except type(first):
            raise second  # noqa: B904  (as users write it)

    with pytest.raises(type(second)) as caught:
        handle()
    return caught.value


def recursion() -> Exception:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as error:
        return error
    raise AssertionError


def chain(length: int, text: str) -> Exception:
    error: Exception | None = None
    for number in range(length):
        error = raised(ValueError(f"{number} {text}"), error)
    assert error is not None
    return error


def loop() -> Exception:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return raised(one, two)


def nested_groups() -> Exception:
    group: Exception = ExceptionGroup("many", [ValueError(number) for number in range(50_000)])
    for level in range(100):
        group = ExceptionGroup(f"level {level}", [group, KeyError("other")])
    return raised(group)


def noted() -> Exception:
    error = ValueError("has notes")
    for _ in range(10_000):
        error.add_note("note " * 1_000)
    return raised(error)


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NotesError(Exception):
    __notes__ = 5  # type: ignore[assignment]  # the point of it


HOSTILE: dict[str, Callable[[], Exception]] = {
    "deep recursion": recursion,
    "a text of 100 MB": lambda: raised(ValueError("y" * 100_000_000)),
    "a chain of 1,000": lambda: chain(1_000, "short"),
    "a chain of long texts": lambda: chain(300, "y" * 1_000_000),
    "causes in a circle": loop,
    "groups in groups": nested_groups,
    "ten thousand notes": noted,
    "notes that are none": lambda: raised(NotesError("odd")),
    "no text to be had": lambda: raised(SpeechlessError()),
    "a class with a long name": lambda: raised(type("E" * 100_000, (Exception,), {})("x")),
    "a class with an odd name": lambda: raised(type("E\n\x1b[31m", (Exception,), {"__module__": 5})("x")),
    "a text that nothing encodes": lambda: raised(FileNotFoundError("caf\udce9.png \x00")),
    "a text of secrets": lambda: raised(ValueError(f"redis://:s3cret@host {KEY} " * 5_000)),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_any_exception_is_described_within_bounds(make: Callable[[], Exception]) -> None:
    exception = make()
    began = time.thread_time()
    error = TaskError.from_exception(exception, "agent")
    assert time.thread_time() - began < 5
    assert 0 < len(error.type) <= NAME_LIMIT
    assert "\n" not in error.type
    assert 0 < len(error.detail) <= DETAIL_LIMIT
    assert 0 < len(error.traceback or "") <= TRACEBACK_LIMIT
    # What is stored is JSON in UTF-8; it must not fail when the batch is done.
    stored = error.model_dump_json()
    assert TaskError.model_validate_json(stored) == error
    assert not any(secret in stored for secret in ("s3cret", "c2VjcmV0", "\x00", "\x1b"))


@pytest.mark.parametrize(
    "error",
    [
        raised(ValueError("plain")),
        raised(KeyError("with a cause"), raised(ZeroDivisionError("the cause"))),
        while_handling(KeyError("first"), ValueError("second")),
        raised(ValueError()),
    ],
    ids=repr,
)
def test_a_usual_exception_is_shown_as_python_does(error: Exception) -> None:
    described = TaskError.from_exception(error, "agent")
    expected = "".join(traceback.format_exception(error))
    assert described.traceback == expected


def test_both_ends_of_a_deep_stack_and_of_a_chain_are_told() -> None:
    deep = TaskError.from_exception(recursion(), "agent").traceback or ""
    assert "frames left out" in deep
    assert deep.startswith("Traceback")
    assert deep.rstrip().endswith("RecursionError: maximum recursion depth exceeded")
    long = TaskError.from_exception(chain(100, "short"), "agent").traceback or ""
    assert "earlier exceptions left out" in long
    assert long.rstrip().endswith("ValueError: 99 short")


def test_the_members_of_a_group_are_told() -> None:
    group = raised(ExceptionGroup("two", [raised(ValueError("one of them")), KeyError("the other")]))
    shown = TaskError.from_exception(group, "agent").traceback or ""
    assert "1 of 2" in shown
    assert "ValueError: one of them" in shown
    assert "KeyError: 'the other'" in shown


def test_what_others_wrote_is_bounded_when_it_is_read() -> None:
    """An error that came with a message, or from a result backend."""
    long = "x" * 100_000
    read = TaskError.model_validate({"type": long, "detail": long, "traceback": long})
    assert len(read.type) <= NAME_LIMIT
    assert len(read.detail) <= DETAIL_LIMIT
    assert len(read.traceback or "") <= TRACEBACK_LIMIT
