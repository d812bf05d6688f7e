"""Send commands over connections of redis-py's, without what its client does for each command besides.

``redis.Redis.execute_command`` takes a connection from the pool and looks whether something is left in it, looks at
each argument, keeps statistics and prepares retries: that was more than half of what a script costs its caller.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any


class Exchange:
    """Connections of a pool that stay taken, one for each thread that needs one at the same time.

    Each is put back for the next command only when its reply was read, so nothing is left in it.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._idle: list[Any] = []
        self._pid = os.getpid()

    def __call__(self, words: Sequence[str | int]) -> Any:
        """Return the reply to a command that may be sent twice; errors are those of redis-py."""
        from redis.exceptions import ResponseError

        command, connection = written(words), self._take()
        try:
            reply = _ask(connection, command)
        except ResponseError:  # it was read as well
            self._idle.append(connection)
            raise
        except BaseException:
            connection.disconnect()
            self._pool.release(connection)
            raise
        self._idle.append(connection)
        return reply

    def _take(self) -> Any:
        if self._pid != os.getpid():
            # They are its parent's. What the pool gives after a fork is new.
            self._idle, self._pid = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return _new(self._pool)


def _new(pool: Any) -> Any:
    try:
        return pool.get_connection()
    except TypeError:  # redis-py before 5.3 asks what for
        return pool.get_connection("EVALSHA")


def _ask(connection: Any, command: bytes) -> Any:
    from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004  # redis-py calls them so

    try:
        connection.send_packed_command([command])
        return connection.read_response()
    except (ConnectionError, TimeoutError):
        # Once more, at once: the server may have closed a connection that was idle. It connects when it sends.
        connection.disconnect()
        connection.send_packed_command([command])
        return connection.read_response()


def written(words: Sequence[str | int]) -> bytes:
    """Return a command as Redis reads it.

    In one piece: redis-py sends what has more than 6 kB by itself, so that one call woke the server up three times, and
    that cost more than what the server then did.
    """
    texts = [*map(str, words)]
    body = "".join([f"${len(text)}\r\n{text}\r\n" for text in texts])
    if body.isascii():
        return f"*{len(texts)}\r\n{body}".encode()
    raw = [text.encode(errors="replace") for text in texts]
    return b"".join([b"*%d\r\n" % len(raw), *(b"$%d\r\n%b\r\n" % (len(each), each) for each in raw)])
