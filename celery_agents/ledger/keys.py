"""Where everything is: the keys of one project.

All share a hash tag, ``celery-agents:{<project_hash>}:…``, so that a cluster keeps them in one slot and one script may
touch several. What is about agent tasks lies in hashes with a sorted set beside each, and not in a key for each agent
task: their number is bounded by the script that writes, the set gives the order, and a script needs to be told a
handful of keys for a thousand agent tasks. Each key's expiry is set by the script that writes it. What entries of
``holders`` say, and what a group is, stands in ``scripts/records.lua``.

    holders:<stage>     hash    agent task -> the message that claims it, or a group   claim's ttl and a day, and
                                                                                       retention of outcomes
    queued:<stage>      zset    message in its queue -> when its claims lapse, ms      the same
    running:<stage>     zset    message that was taken over -> the same                the same
    sizes:<stage>       hash    message -> how many claims it has; also of all         the same
    batches:<stage>     hash    message -> the agent tasks that it got, packed         the same
    message:<id>        hash    token, deliveries, running, death                       claim's ttl and a day
    cancelled           zset    message -> until when, milliseconds                    the longest of them
    pause:<stage>       string  a mark                                                 the pause
    sweep:<stage>       string  who sweeps                                             as asked for
    asked:<stage>       string  "<message id> <when it was sent, or 0>": shall sweep   as asked for
    sent:<id>           string  what a message is that was sent                        as asked for
    crashes             zset    agent task/stage -> expiry and count                   a week
    outcomes            hash    agent task/stage -> record, holder stage -> group      as holders
    outcomes:times      zset    the same names -> when, milliseconds                   the same
    failures            hash    agent task/stage -> record with its spec               retention of failures
    failures:times      zset    agent task/stage -> when, milliseconds                 the same
    pace:<stage>        hash    microseconds, and for how many agent tasks             a week
    next-call           string  when Encord may be called next, microseconds           until then
    listeners:<queue>   zset    worker -> until when it counts, milliseconds           the last that counts
    stages              zset    stage -> when something was last settled there         the longer retention
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import NewType
from uuid import UUID

Key = NewType("Key", str)

DEFAULT_PREFIX = "celery-agents"

# Celery makes UUIDs; a sender may choose otherwise. What is longer or would not fit into a line is kept as its digest.
_PLAIN_ID = re.compile(r"[!-~]{1,200}")

#: What is kept of the claims of a stage.
_CLAIMS = ("holders", "queued", "running", "sizes", "batches")


def plain_id(message_id: str) -> str:
    """Return *message_id* as the ledger keeps it: itself, or a digest where it is very long or has odd characters."""
    if _PLAIN_ID.fullmatch(message_id):
        return message_id
    return f"sha256:{hashlib.sha256(message_id.encode(errors='surrogatepass')).hexdigest()}"


@dataclass(frozen=True)  # a delivery needs some thirty keys, so each is written once
class Keys:
    """The keys of one project.

    Raises:
        ValueError: The prefix has a brace, and so would be the hash tag instead of the project.
    """

    project_hash: UUID
    prefix: str = DEFAULT_PREFIX
    #: Of each stage that was asked about: each message needs them several times.
    _of_claims: dict[UUID, dict[str, Key]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        if "{" in self.prefix or "}" in self.prefix:
            raise ValueError(f"A prefix of the ledger has no braces: {self.prefix!r}.")

    @cached_property
    def _root(self) -> str:
        return f"{self.prefix}:{{{self.project_hash}}}"

    def _key(self, *parts: str) -> Key:
        return Key(":".join((self._root, *parts)))

    def claims(self, stage: UUID) -> dict[str, Key]:
        """All that holds the claims of a stage, by the names of ``calls.OnClaims``."""
        if stage not in self._of_claims:
            self._of_claims[stage] = {name: self._key(name, stage.hex) for name in _CLAIMS}
        return self._of_claims[stage]

    @cached_property
    def holders_prefix(self) -> str:
        """What the keys of all stages' ``holders`` begin with."""
        return self._key("holders", "")

    def message(self, message_id: str) -> Key:
        """How often a message was taken over, and what it is on."""
        return self._key("message", message_id)

    @cached_property
    def cancelled(self) -> Key:
        """Which messages are cancelled."""
        return self._key("cancelled")

    def pause(self, stage: UUID) -> Key:
        """The mark that a stage is paused."""
        return self._key("pause", stage.hex)

    def sweep(self, stage: UUID) -> Key:
        """Who sweeps a stage."""
        return self._key("sweep", stage.hex)

    def asked(self, stage: UUID) -> Key:
        """Which message shall sweep a stage, since somebody asked for that."""
        return self._key("asked", stage.hex)

    def sent(self, message_id: str) -> Key:
        """What a message is that was sent."""
        return self._key("sent", message_id)

    def pace(self, stage: UUID) -> Key:
        """How long an agent task of a stage takes."""
        return self._key("pace", stage.hex)

    @cached_property
    def next_call(self) -> Key:
        """When Encord may be called next, under a rate limit."""
        return self._key("next-call")

    def listeners(self, queue: str) -> Key:
        """Which workers listen to a queue."""
        return self._key("listeners", queue)

    @cached_property
    def crashes(self) -> Key:
        """How often agent tasks killed their worker."""
        return self._key("crashes")

    @cached_property
    def outcomes(self) -> Key:
        """Records of outcomes."""
        return self._key("outcomes")

    @cached_property
    def outcome_times(self) -> Key:
        """When each outcome was recorded."""
        return self._key("outcomes", "times")

    @cached_property
    def failures(self) -> Key:
        """Records of failures."""
        return self._key("failures")

    @cached_property
    def failure_times(self) -> Key:
        """When each failure was recorded."""
        return self._key("failures", "times")

    @cached_property
    def stages(self) -> Key:
        """The stages that have records."""
        return self._key("stages")
