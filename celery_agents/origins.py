"""By which queue a message came, so that what goes round again goes back there.

Celery finds that out for queues of the default exchange. With any other, it sends a message that is to wait to the
app's default queue as soon as the broker does the waiting (native delayed delivery, which quorum queues have).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from celery import Celery
from kombu.transport.native_delayed_delivery import MAX_NUMBER_OF_BITS_TO_USE

#: What a message's routing key begins with when the broker has held it: the seconds, bit by bit.
_DELAY = re.compile(rf"^(?:[01]\.){{{MAX_NUMBER_OF_BITS_TO_USE}}}")


def queue_of(app: Celery, delivery_info: Mapping[str, Any]) -> str | None:
    """Return the queue that a message came by; None where Celery knows, or where it is not one alone.

    Args:
        app: Whose queues.
        delivery_info: Of the message, as Celery's request has it.
    """
    exchange, routing_key = delivery_info.get("exchange"), str(delivery_info.get("routing_key"))
    if not exchange:
        return None
    key = _DELAY.sub("", routing_key)
    queues = [each for each in app.amqp.queues.values() if each.routing_key == key]
    found = [each for each in queues if key != routing_key or each.exchange.name == exchange]
    return str(found[0].name) if len(found) == 1 else None
