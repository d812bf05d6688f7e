"""HTTP sessions that are kept for the next request, with their connections, for as long as servers keep those."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import requests

#: Seconds after which an idle connection is closed. Load balancers keep theirs for a minute or longer.
LONGEST_IDLE = 15.0

Session = TypeVar("Session", bound="requests.Session")


class Sessions(Generic[Session]):
    """Sessions that nobody uses, the longest idle first; one is used by one thread at a time.

    A fork closes what is idle before it happens: a child never shares a connection with its parent.

    Args:
        make: Makes a session where none is idle.
    """

    def __init__(self, make: Callable[[], Session]) -> None:
        self._make = make
        self._start_anew()
        os.register_at_fork(before=self.close, after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        # In a child another thread of the parent may have held the lock.
        self._idle: deque[tuple[float, Session]] = deque()
        self._lock = threading.Lock()
        self._closer: threading.Timer | None = None

    def take(self) -> tuple[Session, float]:
        """Return the session that was used last and since when it is idle, or a new one, which is so since ever."""
        with self._lock:
            since, session = self._idle.pop() if self._idle else (0.0, self._make())
        return session, since

    def give_back(self, session: Session) -> None:
        """Keep a session for the next request; cookies are not."""
        session.cookies.clear()
        with self._lock:
            self._idle.append((time.monotonic(), session))
            if self._closer is None:
                self._close_in(LONGEST_IDLE)

    def close(self) -> None:
        """Close all that is idle, and end the thread that would have done so later."""
        with self._lock:
            idle, self._idle = self._idle, deque()
            closer, self._closer = self._closer, None
        if closer is not None:
            closer.cancel()
            closer.join()
        for _, session in idle:
            session.close()

    def _close_in(self, seconds: float) -> None:
        closer = threading.Timer(seconds, self._close_expired)
        closer.daemon = True
        # At the end of the process no thread can be started, and none is needed.
        with suppress(RuntimeError):
            closer.start()
            self._closer = closer

    def _close_expired(self) -> None:
        expired = []
        with self._lock:
            self._closer = None
            limit = time.monotonic() - LONGEST_IDLE
            while self._idle and self._idle[0][0] <= limit:
                expired.append(self._idle.popleft())
            if self._idle:
                self._close_in(self._idle[0][0] - limit)
        for _, session in expired:
            session.close()
