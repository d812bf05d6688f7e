"""A URL whose password was not encoded is refused in a sentence that has nothing of it."""

from __future__ import annotations

from typing import Any

import pytest

from celery_agents import addresses
from celery_agents.errors import SetupError

READABLE = [
    "redis://:s3cret@host:6379/0",
    "amqp://user:p%2Fw@host:5672//",
    "amqp://user:p@ss@host//",  # the last @ counts
    "sentinel://:a@one:26379;sentinel://:a@two:26379",
    "rpc://",
    "memory://",
    "redis+socket:///run/redis.sock?virtual_host=1",
    "mongodb://user:password@one:1,two:2/name",  # an address of its own making
    ["amqp://user:password@one//", "amqp://user:password@two//"],
    None,
    "",
]
UNREADABLE = [
    "redis://:s3cret/x@host:6379/0",
    "amqp://user:s3cret#x@host//",
    "amqp://user:s3cret?x@host//",
    "amqp://user:123/s3cret@host//",
    "redis://:s3cret]@[host:6379/0",
    "amqp://user:fine@one//;amqp://user:s3cret/x@two//",
    ["amqp://user:fine@one//", "amqp://user:s3cret/x@two//"],
]


@pytest.mark.parametrize("url", READABLE, ids=str)
def test_what_can_be_read_is_let_be(url: Any) -> None:
    addresses.check({"broker_url": url, "result_backend": url})


@pytest.mark.parametrize("name", addresses.SETTINGS)
@pytest.mark.parametrize("url", UNREADABLE, ids=str)
def test_what_cannot_be_read_is_named_and_not_quoted(name: str, url: Any) -> None:
    with pytest.raises(SetupError, match=f"setting {name} cannot be read: .*%2F") as raised:
        addresses.check({name: url})
    assert "s3cret" not in str(raised.value)
