"""On Redis: take messages from their queues so that none is lost on its way to the worker.

kombu waits with BRPOP, which takes a message out of its queue, and notes in a second step that this worker has it. In
between the message is nowhere but on its way: a worker that is killed then, or a connection that breaks, loses it.
kombu 5.7 even leaves it in the socket while the pool is busy, which can be minutes.

Here the waiting takes nothing (BLMOVE from the end of a queue to the same end), and taking is one script, which also
notes that somebody has the message. If that worker dies, another is given it after the visibility timeout.

What is mirrored from kombu's ``transport/redis.py`` is in ``_LAYOUT``, and checked before anything is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str

from celery_agents.redaction import redact
from celery_agents.worker.layouts import Layout, first_unknown

logger = get_logger(__name__)

#: Seconds between two looks at queues other than that which is waited at: BRPOP waits at all of them, BLMOVE at one.
LONGEST_WAIT = 0.25

#: Take the first message that there is, and note it as kombu's QoS.append does: delivery tag -> [message, exchange,
#: routing key]. The message goes in as it is, because decoding and encoding could change it. What cannot be read is
#: taken all the same, for kombu to complain about.
#: KEYS: the notes, their times, and the queues in their order. ARGV: now, and for each queue whether what comes from it
#: is acknowledged. Reply: number of the queue, the message, the number of a queue that has more (0: none has), and the
#: delivery tag under which the message is noted ('': it is not).
_TAKE = """
-- Without the body, which is most of a message: to decode that too would take longer than all else.
local function decoded(message)
  local start = '{"body": "'
  local body_end = string.sub(message, 1, #start) == start and string.find(message, '"', #start + 1, true)
  local is_escaped = body_end and string.sub(message, body_end - 1, body_end - 1) == '\\\\'
  return cjson.decode(body_end and not is_escaped and start .. string.sub(message, body_end) or message)
end

for number = 3, #KEYS do
  local message = redis.call('RPOP', KEYS[number])
  if message then
    local noted = ''
    local ok, properties = pcall(function() return decoded(message).properties end)
    local is_known = ok and type(properties) == 'table' and type(properties.delivery_info) == 'table'
    if is_known and properties.delivery_tag and ARGV[number - 1] == '1' then
      local info = properties.delivery_info
      local tail = ', ' .. cjson.encode(info.exchange) .. ', ' .. cjson.encode(info.routing_key) .. ']'
      redis.call('ZADD', KEYS[2], ARGV[1], properties.delivery_tag)
      redis.call('HSET', KEYS[1], properties.delivery_tag, '[' .. message .. tail)
      noted = properties.delivery_tag
    end
    for next = 3, #KEYS do
      if redis.call('EXISTS', KEYS[next]) == 1 then
        return {number - 2, message, next - 2, noted}
      end
    end
    return {number - 2, message, 0, noted}
  end
end
return false
"""

#: What is used of ``kombu.transport.redis.Channel``, and what tells that it still is what it was.
_LAYOUT: Layout = (
    ("_brpop_start", lambda channel: callable(channel._brpop_start)),  # noqa: SLF001
    ("_brpop_read", lambda channel: callable(channel._brpop_read)),  # noqa: SLF001
    ("_in_poll", lambda channel: hasattr(channel, "_in_poll")),
    ("_queue_cycle", lambda channel: callable(channel._queue_cycle.consume)),  # noqa: SLF001
    ("_q_for_pri", lambda channel: channel._q_for_pri("queue", 0) == "queue"),  # noqa: SLF001
    ("_closing", lambda channel: channel._closing is False),  # noqa: SLF001
    ("priority_steps", lambda channel: len(channel.priority_steps) > 0),
    ("brpop_timeout", lambda channel: channel.brpop_timeout >= 0),
    ("global_keyprefix", lambda channel: isinstance(channel.global_keyprefix, str)),
    ("unacked_key", lambda channel: isinstance(channel.unacked_key, str)),
    ("unacked_index_key", lambda channel: isinstance(channel.unacked_index_key, str)),
    ("client", lambda channel: callable(channel.client.parse_response)),
    ("qos", lambda channel: callable(channel.qos.append) and isinstance(channel.qos, virtual.QoS)),
    ("conn_or_acquire", lambda channel: callable(channel.conn_or_acquire)),
)


def install(consumer: Any) -> None:
    """Have the channel of a consumer, which acknowledges what it gets, take messages in one step.

    Where that cannot be done it goes on as kombu does, with one warning.
    """
    channel = consumer.channel
    reason = _unknown_symbol(channel) or _missing_command(channel)
    if reason:
        logger.warning("Messages may be lost when this worker is killed just as it takes them: %s.", reason)
        return
    _keep_client(channel)
    taking = Taking(consumer, channel.client.parse_response)
    channel._brpop_start = taking.start  # noqa: SLF001
    channel.client.parse_response = taking.parse_response
    channel.qos.append = taking.note


def _unknown_symbol(channel: Any) -> str | None:
    symbol = first_unknown(_LAYOUT, channel)
    return symbol and f"{type(channel).__module__}.Channel.{symbol} is not what it was"


def _missing_command(channel: Any) -> str | None:
    """Try both commands where they have nothing to do: Redis before 6.2 lacks one, and users may lack a right."""
    nothing = _prefixed(channel, "celery-agents-nothing")
    try:
        with channel.conn_or_acquire() as client:
            client.execute_command("BLMOVE", nothing, nothing, "RIGHT", "RIGHT", 0.001)
            client.eval(_TAKE, 2, nothing, nothing, 0)
    except channel.ResponseError as error:
        return f"the broker says {redact(str(error))}"
    return None


def _keep_client(channel: Any) -> None:
    """Have a channel use one client for all its commands.

    kombu makes one for each, all of the same pool of connections. That is a fifth of what a message costs its worker.
    """
    with channel.conn_or_acquire() as kept:  # kombu.transport.redis.Channel, which leaves the client open
        channel.conn_or_acquire = lambda client=None: nullcontext(client or kept)


def _prefixed(channel: Any, key: str) -> str:
    return f"{channel.global_keyprefix}{key}"


class Taking:
    """What replaces BRPOP on one channel.

    Args:
        consumer: Of the queues from which messages are acknowledged. Its channel may read others, such as that of
            answers from other workers.
        parse: The ``parse_response`` of the channel's client, as it was.
    """

    def __init__(self, consumer: Any, parse: Callable[..., Any]) -> None:
        self._channel = consumer.channel
        self._is_acknowledged: Callable[[str], bool] = consumer.consuming_from
        self._parse = parse
        self._asked = ""  #: the command under way
        #: key -> is acknowledged, in the order in which they are looked at
        self._queues: dict[str, bool] = {}
        self._has_more: str | None = None  #: key of a queue where there is no need to wait
        self._append: Callable[..., None] = consumer.channel.qos.append
        self._noted = ""  #: delivery tag of the message that was taken last

    def start(self, timeout: float | None = None) -> None:
        """Wait until there is something, as ``Channel._brpop_start`` does."""
        channel = self._channel
        queues = channel._queue_cycle.consume(len(channel.active_queues))  # noqa: SLF001
        if not queues:
            return
        self._queues = {
            channel._q_for_pri(queue, step): self._is_acknowledged(queue)  # noqa: SLF001
            for step in channel.priority_steps
            for queue in queues
        }
        self._asked, *arguments = self._question(channel.brpop_timeout if timeout is None else timeout)
        channel._in_poll = channel.client.connection  # noqa: SLF001
        channel._brpop_sent_at = time.monotonic()  # noqa: SLF001  # kombu 5.7: to notice a connection that is dead
        channel.client.connection.send_command(self._asked, *arguments)

    def _question(self, timeout: float) -> tuple[Any, ...]:
        """Return the command whose answer says that it is time to take."""
        if self._has_more in self._queues:
            # The answer to BLMOVE brings the message, which may be long, and which `_TAKE` brings again.
            return "EXISTS", _prefixed(self._channel, self._has_more)
        key = _prefixed(self._channel, next(iter(self._queues)))
        return "BLMOVE", key, key, "RIGHT", "RIGHT", min(timeout or LONGEST_WAIT, LONGEST_WAIT)

    def parse_response(self, connection: Any, command: str, **options: Any) -> Any:
        """Return queue and message as the answer to BRPOP would, or None, where another worker was quicker."""
        if command != "BRPOP" or not self._asked:  # or it is a BRPOP from before
            return self._parse(connection, command, **options)
        asked, self._asked = self._asked, ""
        self._parse(connection, asked, **options)  # what there is there may be somebody else's by now
        return None if self._channel._closing else self._take()  # noqa: SLF001

    def _take(self) -> tuple[str, Any] | None:
        channel, queues = self._channel, list(self._queues)
        keys = [_prefixed(channel, key) for key in (channel.unacked_key, channel.unacked_index_key, *queues)]
        notes = ["1" if is_acknowledged else "0" for is_acknowledged in self._queues.values()]
        with channel.conn_or_acquire() as client:
            # Not EVALSHA: kombu's client would put the prefix before one of the keys.
            taken = client.eval(_TAKE, len(keys), *keys, time.time(), *notes)
        if not taken:
            self._has_more = None
            return None
        number, message, more, noted = taken
        self._has_more = queues[int(more) - 1] if int(more) else None
        self._noted = bytes_to_str(noted)
        return queues[int(number) - 1], message

    def note(self, message: Any, delivery_tag: str) -> None:
        """Note that a message is with this worker, as ``QoS.append`` does; in Redis what is not noted there yet."""
        if delivery_tag == self._noted:
            virtual.QoS.append(self._channel.qos, message, delivery_tag)
        else:
            self._append(message, delivery_tag)
