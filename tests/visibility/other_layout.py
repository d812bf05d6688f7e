"""A Redis transport as kombu's might be one day: it works, but a name that we rely on has another type."""

from __future__ import annotations

from kombu.transport import redis


class Channel(redis.Channel):
    unacked_index_key = b"unacked_index"  # type: ignore[assignment]  # which is the point


class Transport(redis.Transport):
    Channel = Channel
