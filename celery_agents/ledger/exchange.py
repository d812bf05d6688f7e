"""Send a command over a connection of redis-py's and read the reply, without what its client does for each besides.

``redis.Redis.execute_command`` looks at every argument, keeps statistics and prepares retries: of what a script costs its
caller that was more than half. Pool and connection are used as redis-py's own pipelines use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def exchange(pool: Any, words: Sequence[str | int]) -> Any:
    """Return the reply to a command that may be sent twice; errors are those of redis-py."""
    from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004  # redis-py calls them so

    command, connection = written(words), _taken(pool)
    try:
        try:
            return _ask(connection, command)
        except (ConnectionError, TimeoutError):
            # Once more, at once: the server may have closed a connection that was idle. This one has disconnected
            # itself, and connects when it sends.
            return _ask(connection, command)
    finally:
        pool.release(connection)


def _taken(pool: Any) -> Any:
    try:
        return pool.get_connection()
    except TypeError:  # redis-py before 5.3 asks for what
        return pool.get_connection("EVALSHA")


def _ask(connection: Any, command: bytes) -> Any:
    connection.send_packed_command([command])
    return connection.read_response()


def written(words: Sequence[str | int]) -> bytes:
    """Return a command as Redis reads it.

    In one piece: redis-py sends what has more than 6 kB by itself, so that one call woke the server up three times, and
    that cost more than what the server then did.
    """
    texts = [str(word) for word in words]
    body = "".join([f"${len(text)}\r\n{text}\r\n" for text in texts])
    if body.isascii():
        return f"*{len(texts)}\r\n{body}".encode()
    raw = [text.encode(errors="replace") for text in texts]
    return b"".join([b"*%d\r\n" % len(raw), *(b"$%d\r\n%b\r\n" % (len(each), each) for each in raw)])
