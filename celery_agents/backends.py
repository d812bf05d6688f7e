"""What differs between Celery's result backends, as a table: how many messages' results are read in one round trip.

A backend is recognised by what it can do, not by its name. Everything here that is not public in Celery is named beside
its use; a backend without it is asked message by message through ``get_task_meta``, which every backend has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from celery.backends.base import DisabledBackend
from celery.exceptions import SecurityError
from celery.exceptions import TimeoutError as ResultTimeoutError
from kombu.exceptions import DecodeError, SerializerNotInstalled

from celery_agents.errors import SetupError
from celery_agents.redaction import redact
from celery_agents.snapshots import Stored

#: Results read in one round trip at most.
CHUNK = 750
#: Agent tasks whose outcomes are read in one round trip: some 40 MB, whether they are in many results or in few.
OUTCOMES_AT_ONCE = 100_000

#: Replies that may lie in an RPC reply queue. Celery gives up, and loses what it has read, at 1000: a few hundred
#: messages that report their progress.
REPLY_BACKLOG = 1_000_000

#: Messages of which it is remembered that they were waited for, see ``_drop_old_news``: somewhat more than those whose
#: ends Celery puts aside, at most.
MOST_AWAITED = 10_000

#: What decoding a stored result raises where it is not JSON, not a result, or names something that is no exception.
UNREADABLE_ERRORS = (
    DecodeError,
    SerializerNotInstalled,
    SecurityError,
    ValueError,
    TypeError,
    LookupError,
)

_PENDING = {"status": "PENDING", "result": None}

#: Ids of messages that were waited for, the oldest first; of any backend, for no two messages share an id.
_awaited: dict[str, None] = {}
_awaited_lock = threading.Lock()

Read = Callable[[Any, list[str]], Iterator[Stored]]


@dataclass(frozen=True, slots=True)
class BackendKind:
    """How results are read from one kind of result backend."""

    can: Callable[[Any], bool]  #: whether a backend is of this kind
    read: Read  #: gives what is stored for each of at most ``CHUNK`` ids, in their order
    reads_once: bool = (
        False  #: whether what has been read is gone from the backend, so that the reader must keep it
    )
    notifies: bool = False  #: whether it tells when a message has ended, so that waiting needs no polling


def _read_by_key(backend: Any, ids: list[str]) -> Iterator[Stored]:
    # celery.backends.base.BaseKeyValueStoreBackend: get_key_for_task, mget, decode_result.
    keys = [backend.get_key_for_task(message_id) for message_id in ids]
    try:
        found = backend.mget(keys)
    except NotImplementedError:  # what the base class does; DynamoDB's leaves it so
        yield from _read_one_by_one(backend, ids)
        return
    # Redis answers with a list, memcached with a dict of the keys that it has.
    payloads = [found.get(key) for key in keys] if hasattr(found, "get") else found
    for payload in payloads:
        yield _decoded(backend.decode_result, payload) if payload else _PENDING


def _read_by_query(backend: Any, ids: list[str]) -> Iterator[Stored]:
    # celery.backends.database.DatabaseBackend: ResultSession, task_cls. Only the columns that are needed are asked for:
    # a table made by an older Celery may lack others.
    task = backend.task_cls
    with closing(backend.ResultSession()) as session:
        query = session.query(task.task_id, task.status, task.result, task.traceback)
        rows = {row.task_id: row for row in query.filter(task.task_id.in_(ids))}
    for message_id in ids:
        row = rows.get(message_id)
        yield _PENDING if row is None else _decoded(lambda found: _meta_in(backend, found), row)


def _meta_in(backend: Any, row: Any) -> Stored:
    # Celery 5.6 stores what comes back as an object, 5.7 what `decode` reads; `decode` refuses anything but JSON.
    value = backend.decode(row.result) if isinstance(row.result, bytes) else row.result
    meta: Stored = backend.meta_from_decoded(
        {"status": row.status, "result": value, "traceback": row.traceback}
    )
    return meta


def _read_replies(backend: Any, ids: list[str]) -> Iterator[Stored]:
    # celery.backends.rpc.RPCBackend: get_task_meta(backlog_limit) takes everything from the reply queue and puts aside
    # what was not asked for; finals also go to _pending_messages, which Celery 5.6 does not look at again.
    for message_id in ids:
        meta = _decoded(lambda wanted: backend.get_task_meta(wanted, backlog_limit=REPLY_BACKLOG), message_id)
        if isinstance(meta, Exception) or meta["status"] != "PENDING":
            yield meta
            continue
        put_aside = backend._pending_messages  # noqa: SLF001  # see above
        aside = put_aside.take(message_id, None)
        if aside is not None:
            put_aside.put(message_id, aside)
        yield _decoded(backend.meta_from_decoded, dict(aside)) if aside else meta


def _read_one_by_one(backend: Any, ids: list[str]) -> Iterator[Stored]:
    for message_id in ids:
        yield _decoded(backend.get_task_meta, message_id)


def _decoded(decode: Callable[[Any], Stored], payload: Any) -> Stored:
    try:
        meta = decode(payload)
        meta["status"]  # type: ignore[index]  # anything may be stored under a result's key
    except UNREADABLE_ERRORS as error:
        return error
    return meta


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda backend: all(hasattr(backend, name) for name in names)


_KINDS = (
    BackendKind(
        _has("mget", "get_key_for_task", "result_consumer", "_pending_messages"), _read_by_key, notifies=True
    ),
    BackendKind(_has("mget", "get_key_for_task"), _read_by_key),
    BackendKind(_has("ResultSession", "task_cls"), _read_by_query),
    # Its consumer would take the replies of other messages, and drop their progress: asking is better than waiting.
    BackendKind(_has("BacklogLimitExceeded", "_pending_messages"), _read_replies, reads_once=True),
    BackendKind(lambda _: True, _read_one_by_one),
)


def kind_of(backend: Any) -> BackendKind:
    """Return how to read from *backend*."""
    return next(kind for kind in _KINDS if kind.can(backend))


def backend_of(app: Any) -> Any:
    """Return the app's result backend.

    Raises:
        SetupError: It cannot be made: a client library is missing, an address is wrong, a database is down.
    """
    try:
        return app.backend
    except Exception as error:  # each backend's client raises errors of its own
        raise SetupError(f"The result backend cannot be used: {_sentence(error)}") from error


def check(app: Any) -> None:
    """Ask the app's result backend something, if it has one.

    Celery subscribes to the result of each message that it sends; where the backend is down it tries for 20 seconds.

    Raises:
        SetupError: It cannot be reached.
    """
    backend = backend_of(app)
    # An RPC backend is the broker, and asking it would take results away.
    if not (isinstance(backend, DisabledBackend) or kind_of(backend).reads_once):
        next(read(backend, ["celery-agents-check"]))


def read(backend: Any, ids: Iterable[str], *, size: int = 1) -> Iterator[Stored]:
    """Yield what *backend* holds for each of *ids*, in their order, as few round trips as it allows.

    *ids* is read chunk by chunk, and so is the backend: what is yielded and dropped takes no memory.

    Args:
        backend: Celery's.
        ids: Of the messages.
        size: How many agent tasks they carry, the largest of them.

    Raises:
        SetupError: There is no result backend, or it cannot be reached.
    """
    if isinstance(backend, DisabledBackend):
        raise SetupError("This app has no result backend: set result_backend in its configuration.")
    kind, remaining = kind_of(backend), iter(ids)
    number = max(1, min(CHUNK, OUTCOMES_AT_ONCE // size))
    while chunk := list(islice(remaining, number)):
        yield from _explained(backend, kind.read(backend, chunk))


def _explained(backend: Any, reading: Iterator[Stored]) -> Iterator[Stored]:
    try:
        yield from reading
    except Exception as error:  # each backend's client raises errors of its own
        raise SetupError(
            f"The result backend {_address(backend)} cannot be read: {_sentence(error)}"
        ) from error


def _sentence(error: Exception) -> str:
    # SQLAlchemy's goes on with hints and the statement.
    return next(iter(redact(str(error)).strip().splitlines()), type(error).__name__)


def _address(backend: Any) -> str:
    return redact(str(backend.as_uri()))


def tells(app: Any) -> bool:
    """Whether the app's result backend tells when a message has ended, so that nobody need look again and again."""
    return kind_of(backend_of(app)).notifies


def await_end(app: Any, message_id: str, seconds: float) -> Stored | None:
    """Wait for about *seconds* until the backend tells that a message has ended; return what is stored for it then.

    None where it has not ended, or what is stored cannot be decoded. One that has ended already is told of at once.
    """
    result = app.AsyncResult(message_id)
    try:
        _await(app.backend, result, seconds)
    except (ResultTimeoutError, TimeoutError, *UNREADABLE_ERRORS):
        return None  # whoever waits looks at what is stored, and finds the same
    else:
        return {"status": result.state, "result": result.result, "traceback": result.traceback}
    finally:
        # Celery would hold on to what timed out until its message has ended.
        app.backend.remove_pending_result(result)
        _drop_old_news(app.backend, message_id)


def _drop_old_news(backend: Any, message_id: str) -> None:
    """Drop what Celery has put aside of messages that were waited for already, with *message_id* the latest of them.

    Who finds an end stored does not read its notification. That is read when the next message is waited for, and put
    aside with its result, as nobody asks for it any more. Of what was put aside and taken, an empty buffer is left.
    What is dropped too early is not lost: who waits looks first at what is stored.
    """
    # celery.utils.collections.BufferMap: id -> buffer, and in `total` how many messages are in all of them.
    put_aside = backend._pending_messages  # noqa: SLF001  # see above
    with _awaited_lock:
        _awaited[message_id] = None
        if len(_awaited) > MOST_AWAITED:
            del _awaited[next(iter(_awaited))]
        for old in [each for each in list(put_aside) if each in _awaited]:
            put_aside.total -= len(put_aside.pop(old, ()))


def _await(backend: Any, result: Any, seconds: float) -> None:
    if seconds >= 1:
        result.get(timeout=seconds, propagate=False)
        return
    # Celery's get looks at the clock only once a second. Its steps are these (celery.backends.asynchronous:
    # AsyncBackendMixin.wait_for_pending, BaseResultConsumer._wait_for_pending), the interval is ours.
    consumer = backend.result_consumer
    backend.add_pending_result(result)
    consumer.on_wait_for_pending(result)
    for _ in consumer.drainer.drain_events_until(result.on_ready, timeout=seconds, interval=seconds):
        pass


def pause(app: Any, message_id: str, told: float, untold: float) -> None:
    """Wait for about *told* seconds or until the message has ended, where the backend tells; else sleep *untold*."""
    if tells(app):
        await_end(app, message_id, told)
    else:
        time.sleep(untold)


def is_old_news(backend: Any, stored: Stored) -> bool:
    """Whether *stored* only means that nothing has come since the last look: what was seen then still holds."""
    if isinstance(stored, Exception) or stored["status"] != "PENDING":
        return False
    return kind_of(backend).reads_once
