"""What the server counts: calls by name, the SDK's own retries of them, and TCP connections."""

from __future__ import annotations

from collections import Counter, OrderedDict

_REMEMBERED = 4096


class Counters:
    """Counts since the start, or since `reset`. Written by the server's thread only."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        """By the call's stable name; every request counts, those that failed too."""
        self.retries: Counter[str] = Counter()
        """Of those, requests that were seen before: same trace id and same signature."""
        self.connections = 0
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def count(self, call: str, trace: str, signature: str) -> None:
        """Count one request."""
        self.calls[call] += 1
        if not trace:
            return
        if (trace, signature) in self._seen:
            self.retries[call] += 1
        self._seen[trace, signature] = None
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def reset(self) -> None:
        """Start again from zero."""
        self.calls.clear()
        self.retries.clear()
        self.connections = 0
