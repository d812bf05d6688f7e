"""``celeryconfig.py`` says what Celery understands, and keeps the promises of its comments."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from celery import Celery
from celery.app.defaults import NAMESPACES, flatten

import celeryconfig
from celery_agents.cli.findings import Verdict
from celery_agents.cli.settings import look
from celery_agents.retries import RetryPolicy
from celery_agents.worker import visibility

SETTINGS = [name for name in vars(celeryconfig) if not name.startswith("_") and name != "os"]


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The configuration where the environment says nothing."""
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CELERY_WORKER_MAX_MEMORY_PER_CHILD"):
        monkeypatch.delenv(name, raising=False)
    return importlib.reload(celeryconfig)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_name_is_a_setting_of_celery_s(name: str) -> None:
    assert name in dict(flatten(NAMESPACES))


def test_every_setting_has_its_reason_above_it() -> None:
    paragraphs = inspect.getsource(celeryconfig).split("\n\n")
    settings = [each.strip() for each in paragraphs if re.search(r"^[a-z_]+ = ", each, re.MULTILINE)]

    assert len(settings) > 15
    assert [each for each in settings if not each.startswith("#: ")] == []


def test_celery_takes_it_as_it_is(config: ModuleType) -> None:
    app = Celery("app", set_as_current=False)
    app.config_from_object("celeryconfig")

    for name in SETTINGS:
        assert app.conf[name] == getattr(config, name), name


def test_agents_check_has_nothing_to_say_about_it(config: ModuleType) -> None:
    app = Celery("app", set_as_current=False)
    app.config_from_object("celeryconfig")

    assert [finding.subject for finding in look(app, []) if finding.verdict is not Verdict.OK] == []


def test_rabbitmq_takes_no_message_away_while_it_waits_for_its_retry_and_runs(config: ModuleType) -> None:
    consumer_timeout = 30 * 60  # RabbitMQ's default

    assert RetryPolicy().retry_backoff_max + config.task_time_limit < consumer_timeout
    assert config.task_soft_time_limit < config.task_time_limit


def test_the_visibility_timeout_is_left_to_the_workers_that_renew_it(config: ModuleType) -> None:
    app = Celery("app", set_as_current=False)
    app.config_from_object("celeryconfig")

    assert visibility.prepare(app)

    options = app.conf.broker_transport_options
    assert options == {**config.broker_transport_options, **visibility.DEFAULTS}


@pytest.mark.parametrize("url", ["amqp://host//", "sqs://"])
def test_brokers_other_than_redis_get_no_option_that_they_do_not_know(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", url)

    assert importlib.reload(celeryconfig).broker_transport_options == {}


def test_broker_backend_and_memory_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere:1/2")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://elsewhere:1/3")
    monkeypatch.setenv("CELERY_WORKER_MAX_MEMORY_PER_CHILD", "1000")

    config = importlib.reload(celeryconfig)

    assert config.broker_url == "redis://elsewhere:1/2"
    assert config.result_backend == "redis://elsewhere:1/3"
    assert config.worker_max_memory_per_child == 1000


def test_it_is_found_in_the_checkout() -> None:
    assert Path(celeryconfig.__file__).parent == Path(__file__).parents[2]
