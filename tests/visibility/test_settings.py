"""What is set, when, and how often something is done."""

from __future__ import annotations

import uuid

import pytest
from celery import Celery, _state
from celery.signals import worker_init

from celery_agents import QueueRunner
from celery_agents.worker import visibility
from celery_agents.worker.visibility import VisibilityRenewal, network_timeout, renewal_interval


@pytest.mark.parametrize(("timeout", "interval"), [(2, 0.4), (10, 2), (25, 5), (60, 5), (3600, 5)])
def test_a_timeout_has_room_for_five_renewals(timeout: float, interval: float) -> None:
    assert renewal_interval(timeout) == interval


@pytest.mark.parametrize(("timeout", "seconds"), [(2, 1), (10, 2), (60, 5), (3600, 5)])
def test_a_hanging_renewal_is_given_up_before_the_timeout_is_over(timeout: float, seconds: float) -> None:
    assert network_timeout(timeout) == seconds


@pytest.mark.parametrize("url", ["redis://", "rediss://host?ssl_cert_reqs=none", "sentinel://a;sentinel://b"])
def test_the_timeout_is_short_where_the_user_has_set_none(url: str) -> None:
    app = Celery(broker=url, broker_transport_options={"master_name": "main"})
    assert visibility.prepare(app)
    assert app.conf.broker_transport_options == {
        "master_name": "main",
        "visibility_timeout": 60,
        "unacked_mutex_expire": 10,
    }


def test_what_the_user_has_set_stays() -> None:
    app = Celery(broker="redis://")
    app.conf.broker_transport_options = {"visibility_timeout": 1800, "unacked_mutex_expire": 20}
    assert visibility.prepare(app)
    assert app.conf.broker_transport_options == {"visibility_timeout": 1800, "unacked_mutex_expire": 20}


def test_it_can_be_switched_off() -> None:
    app = Celery(broker="redis://")
    app.conf.agents_visibility_renewal = False
    assert not visibility.prepare(app)
    assert app.conf.broker_transport_options == {}


class Worker:
    """As much of a worker as there is when it says that it begins."""

    def __init__(self, app: Celery) -> None:
        self.app = app


def test_a_worker_of_an_app_with_agents_renews() -> None:
    app = Celery(set_as_current=False)
    QueueRunner(uuid.uuid4(), app=app).stage("Pre-label")(lambda: None)
    worker_init.send(sender=Worker(app))
    assert VisibilityRenewal in app.steps["consumer"]


def test_a_worker_of_an_app_without_agents_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Agents that other tests declared without an app belong to every app of this process.
    monkeypatch.setattr(_state, "_on_app_finalizers", set())
    app = Celery(set_as_current=False)
    worker_init.send(sender=Worker(app))
    assert VisibilityRenewal not in app.steps["consumer"]
