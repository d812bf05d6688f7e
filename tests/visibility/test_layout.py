"""A kombu that is not built as we know it is left alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from kombu.transport import redis

from celery_agents.worker import visibility
from tests.worker.conftest import wait_until

from .conftest import Stand


def transport_with(symbol: str, value: Any) -> Any:
    """Return kombu's transport, with something else in the place of *symbol*."""
    owner, name = symbol.split(".")
    changes: dict[str, dict[str, Any]] = {"QoS": {}, "Channel": {}, "Transport": {}} | {owner: {name: value}}
    qos = type("QoS", (redis.QoS,), changes["QoS"])
    channel = type("Channel", (redis.Channel,), {"QoS": qos} | changes["Channel"])
    transport = {"Channel": channel, "__module__": "kombu.transport.redis"} | changes["Transport"]
    return type("Transport", (redis.Transport,), transport)


def init_with(name: str, value: object) -> Callable[..., None]:
    def init(self: Any, *arguments: Any) -> None:
        super(redis.QoS, self).__init__(*arguments)
        setattr(self, name, value)

    return init


def test_the_installed_kombu_is_known() -> None:
    assert visibility.unknown_symbol(redis.Transport) is None
    assert visibility.unknown_symbol(redis.SentinelTransport) is None


@pytest.mark.parametrize(
    ("symbol", "value"),
    [
        ("Channel.conn_or_acquire", None),
        ("Channel.from_transport_options", ("sep",)),
        ("Channel.state", None),
        ("Channel.unacked_index_key", b"unacked_index"),
        ("Channel.visibility_timeout", "1h"),
        ("QoS.restore_unacked", None),
        ("QoS.restore_visible", lambda self, start=0, num=10: None),
    ],
)
def test_what_has_changed_is_named(symbol: str, value: object) -> None:
    assert visibility.unknown_symbol(transport_with(symbol, value)) == f"kombu.transport.redis.{symbol}"


@pytest.mark.parametrize(("name", "value"), [("_delivered", []), ("_dirty", {})])
def test_what_has_changed_in_an_instance_is_named(name: str, value: object) -> None:
    transport = transport_with("QoS.__init__", init_with(name, value))
    assert visibility.unknown_symbol(transport) == f"kombu.transport.redis.QoS.{name}"


def test_nothing_is_set_where_the_layout_is_unknown(caplog: pytest.LogCaptureFixture) -> None:
    app = Celery(broker="redis://", broker_transport="tests.visibility.other_layout:Transport")
    with caplog.at_level(logging.WARNING):
        assert not visibility.prepare(app)
    assert app.conf.broker_transport_options == {}
    assert "tests.visibility.other_layout.Channel.unacked_index_key is not what it was" in caplog.text


def test_a_worker_on_an_unknown_layout_works_as_without_us(make_stand: Callable[..., Stand]) -> None:
    there = make_stand(BROKER_TRANSPORT="tests.visibility.other_layout:Transport")
    there.start_worker("-c", "1")
    there.app.tasks["tests.visibility.tasks_app.note"].delay("one")
    wait_until("it is done", lambda: there.done()["one"])
    [answer] = there.app.control.inspect().conf().values()
    assert "visibility_timeout" not in answer["broker_transport_options"]
    assert there.log().read_text().count("is not what it was") == 1
