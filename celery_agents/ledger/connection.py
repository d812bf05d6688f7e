"""Redis as the ledger uses it: one client, scripts sent by their digest, one kind of error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from celery_agents.errors import LedgerError
from celery_agents.ledger.exchange import Exchange
from celery_agents.ledger.scripts import Call
from celery_agents.redaction import redact

if TYPE_CHECKING:
    from redis import Redis
    from redis.cluster import RedisCluster

#: Seconds to wait for a connection and for an answer. Every script takes milliseconds; a worker that waits longer would
#: better go on without.
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 2.0, 5.0
#: The oldest Redis that has what the scripts use: ZMSCORE. Valkey calls itself Redis 7.2.4.
OLDEST_SERVER = (6, 2)


class Connection:
    """A connection to the ledger's Redis; opened at first use, good after a fork, shared by threads.

    Args:
        redis: Its URL (``redis://``, ``rediss://`` or ``unix://``), or a client that is configured already, also one
            for a cluster or from Sentinel.

    Raises:
        LedgerError: The URL is not one of Redis.
    """

    def __init__(self, redis: str | Redis | RedisCluster) -> None:
        client: Any = _connect(redis) if isinstance(redis, str) else redis
        self._client = client
        # A client that is configured already may be of any kind, and is asked itself.
        self._exchange = Exchange(client.connection_pool) if isinstance(redis, str) else None
        self.address = _address(self._client)
        self._explained = _Explained(self.address, _secrets(redis) if isinstance(redis, str) else frozenset())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    def run(self, call: Call) -> Any:
        """Run a script and return its reply, with text for bytes."""
        from redis.exceptions import NoScriptError

        script, keys = call.script(), call.keys
        rest = (len(keys), *keys, *call.arguments)
        with self._explained:
            try:
                reply = self._execute("EVALSHA", script.sha, *rest)
            except (
                NoScriptError
            ):  # the server is new, was restarted, or its scripts were flushed: EVAL keeps it
                reply = self._execute("EVAL", script.text, *rest)
            return _text(reply)

    def command(self, *words: str | int) -> Any:
        """Run one command and return its reply, with text for bytes."""
        with self._explained:
            return _text(self._execute(*words))

    def _execute(self, *words: str | int) -> Any:
        return self._exchange(words) if self._exchange else self._client.execute_command(*words)

    def hash_items(self, key: str) -> Iterator[dict[str, str]]:
        """Yield the items of a hash of any size, about a thousand at a time; each time is a round trip."""
        cursor = 0
        while True:
            with self._explained:
                cursor, items = self._client.hscan(key, cursor, count=1_000)
            yield {_text(name): _text(value) for name, value in items.items()}
            if cursor == 0:
                return

    def check(self) -> str:
        """Return which server it is; LedgerError where it does not answer or is too old."""
        with self._explained:
            known = self._client.info("server")
        # A cluster's client answers for each node.
        found = known if "redis_version" in known else next(iter(known.values()))
        version = str(found["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
            raise LedgerError(
                f"The ledger at {self.address} is Redis {version}; it needs 6.2 or newer, or Valkey."
            )
        name = "valkey_version" if "valkey_version" in found else "redis_version"
        return f"{name.removesuffix('_version').capitalize()} {found[name]} at {self.address}"

    def close(self) -> None:
        """Close what is open; the next call opens it again."""
        with self._explained:
            self._client.close()


class _Explained:
    """A context in which what redis-py raises becomes a LedgerError without passwords."""

    # Not a generator, which would cost more than what it is used for; it has no state, so threads may share it.
    def __init__(self, address: str, secrets: frozenset[str]) -> None:
        self._address, self._secrets = address, secrets

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None:
            return
        from redis.exceptions import RedisClusterException, RedisError

        if isinstance(error, (RedisError, RedisClusterException, OSError, UnicodeDecodeError)):
            # Without its cause: what the client or its settings say of themselves may hold the password.
            raise LedgerError(
                f"The ledger at {self._address} cannot be used: {self._blanked(error)}"
            ) from None

    def _blanked(self, error: Exception) -> str:
        text = redact(str(error) or type(error).__name__)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _connect(url: str) -> Redis:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        client: Redis = redis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=ANSWER_TIMEOUT,
            # Once more, at once: the server may have closed a connection that was idle. All may be repeated.
            retry=Retry(NoBackoff(), 1),
            encoding_errors="replace",
        )
    except (ValueError, TypeError, redis.RedisError):
        # What is wrong with a URL is often its password, so it is not told.
        raise LedgerError(
            "The ledger's URL (agents_ledger_url) is not one of Redis: redis://, rediss:// or unix://, "
            "with special characters of a password as %XX. For a cluster or Sentinel, pass a client."
        ) from None
    return client


def _secrets(url: str) -> frozenset[str]:
    """Return the passwords in *url*, as they are written and as they are meant."""
    parts = urlsplit(url)
    written = [parts.password or "", *parse_qs(parts.query).get("password", [])]
    return frozenset(each for text in written for each in (text, unquote(text)) if each)


def _address(client: Any) -> str:
    """Return where *client* connects to, without user and password."""
    pool = getattr(client, "connection_pool", None)
    options = getattr(pool, "connection_kwargs", {})
    if "path" in options:
        return f"unix:{options['path']}"
    if "host" in options:
        return f"{options['host']}:{options.get('port', 6379)}, database {options.get('db') or 0}"
    return type(client).__name__


def _text(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode(errors="replace")
    if isinstance(reply, list):
        return [_text(each) for each in reply]
    return reply
