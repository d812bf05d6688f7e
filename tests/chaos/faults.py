"""What Encord does to its callers while workers die."""

from __future__ import annotations

from collections.abc import Iterator

from celery_agents.sandbox import Fault, SandboxServer

SAVING = "labels.save"
#: All other calls; patterns as ``Fault`` knows them.
OTHERS = ("[!l]*", "label_*", "labels.[!s]*")


def encord_in_trouble() -> Iterator[Fault]:
    """Of a hundred calls five meet a server error, three too many requests, two a connection that breaks."""
    for call in (SAVING, *OTHERS):
        yield Fault(call=call, rate=0.05, status=503)
        yield Fault(call=call, rate=0.03, status=429, retry_after="1")
        yield Fault(call=call, rate=0.01, drop="before")
        yield Fault(call=call, rate=0.01, drop="after")


def failed_saves(sandbox: SandboxServer) -> int:
    """Return how many requests to save labels were not answered well: their agents run again."""
    return sum(fault["hit"] for fault in sandbox.faults.to_json() if fault.get("call") == SAVING)
