"""The ledger. The theory is in the package's docstring, the layout in ``keys``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents.ledger.asking import Asking
from celery_agents.ledger.claiming import Claiming
from celery_agents.ledger.connection import Connection
from celery_agents.ledger.keys import DEFAULT_PREFIX, Keys
from celery_agents.ledger.limiting import Limiting
from celery_agents.ledger.listening import Listening
from celery_agents.ledger.marking import Marking
from celery_agents.ledger.pacing import Pacing
from celery_agents.ledger.part import Retention
from celery_agents.ledger.recording import Recording

if TYPE_CHECKING:
    from redis import Redis
    from redis.cluster import RedisCluster


class Ledger(Claiming, Recording, Marking, Asking, Listening, Limiting, Pacing):
    """What is in flight in one project, what became of it, and what failed.

    Each operation is one round trip, takes thousands of agent tasks at once, may be repeated, and raises LedgerError
    where Redis cannot be used. Times are in seconds.

    Args:
        redis: The URL of a Redis 6.2 or newer or of a Valkey, or a client that is configured already.
        project_hash: The project; each has its own keys.
        prefix: What all keys begin with.
        retention: What is kept of what has ended.

    Raises:
        LedgerError: The URL is not one of Redis. Nothing is connected yet, see ``check``.
        ValueError: The prefix has a brace.
    """

    def __init__(
        self,
        redis: str | Redis | RedisCluster,
        project_hash: UUID,
        *,
        prefix: str = DEFAULT_PREFIX,
        retention: Retention | None = None,
    ) -> None:
        self.keys = Keys(project_hash, prefix)
        self.retention = retention or Retention()
        self._connection = Connection(redis)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of project {self.keys.project_hash} at {self._connection.address}>"

    def check(self) -> str:
        """Return which server this is, for people; LedgerError where there is none, or one that is too old."""
        return self._connection.check()

    def close(self) -> None:
        """Close what is open; the next operation opens it again."""
        self._connection.close()
