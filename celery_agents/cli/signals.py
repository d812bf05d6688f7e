"""End a command when it is told to: at once, but not in the middle of sending."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class TerminatedError(BaseException):
    """Raised for SIGTERM, as KeyboardInterrupt is for Ctrl-C; no ``except Exception`` keeps it."""


#: What ends a command, and what is raised for it.
_ERRORS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: TerminatedError}


class Interruption:
    """A context in which SIGINT and SIGTERM raise an exception wherever the main thread is.

    What is claimed and half sent is finished first, see ``held_off``; a second signal does not wait for that.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._is_held_off = False
        self._pending: BaseException | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows no other to set handlers
            self._before = {number: signal.signal(number, self._on_signal) for number in _ERRORS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def is_pending(self) -> bool:
        """Whether a signal has come that is held off."""
        return self._pending is not None

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Raise what comes meanwhile at the end of the block."""
        self._is_held_off = True
        try:
            yield
        finally:
            self._is_held_off = False
            if self._pending is not None:
                raise self._pending

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        error = _ERRORS[number]()
        if not self._is_held_off or self._pending is not None:
            raise error
        self._pending = error
