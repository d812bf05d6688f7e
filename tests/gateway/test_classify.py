"""What the real SDK raises for each answer of the server, and whether that passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from encord.exceptions import EncordException, RateLimitExceededError
from encord.user_client import EncordUserClient

from celery_agents import DownloadError
from celery_agents.gateway.classify import classify, is_about_everything, is_outage
from celery_agents.gateway.client import requests_settings
from celery_agents.gateway.project import Gateway
from celery_agents.sandbox import Fault, SandboxServer


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=1) as server:
        yield server


@pytest.fixture
def gateway(sandbox: SandboxServer) -> Gateway:
    sandbox.faults.clear()
    client = EncordUserClient.create_with_ssh_private_key(
        sandbox.private_key, domain=sandbox.url, requests_settings=requests_settings()
    )
    return Gateway(UUID(sandbox.project_hash), client)


def raised_by(work: Callable[[], Any]) -> EncordException:
    with pytest.raises(EncordException) as raised:
        work()
    return raised.value


def v2_error(gateway: Gateway) -> EncordException:
    return raised_by(lambda: gateway.tasks_at(gateway.agent_stage("Pre-label"), [uuid4()]))


def legacy_error(gateway: Gateway) -> EncordException:
    return raised_by(gateway.project.list_label_rows_v2)


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
@pytest.mark.parametrize(
    ("status", "passes"),
    [(status, False) for status in (400, 401, 403, 404, 405, 409, 413)]
    + [(status, True) for status in (429, 500, 502, 503, 504)],
)
def test_statuses_of_the_v2_api(
    sandbox: SandboxServer, gateway: Gateway, status: int, html: bool, passes: bool
) -> None:
    sandbox.faults.add(Fault(call="tasks.list", status=status, html=html))
    assert classify(v2_error(gateway)).transient is passes


@pytest.mark.parametrize("html", [False, True], ids=["json", "html"])
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_statuses_of_the_legacy_api(
    sandbox: SandboxServer, gateway: Gateway, status: int, html: bool
) -> None:
    sandbox.faults.add(Fault(call="label_rows.list", status=status, html=html))
    assert classify(legacy_error(gateway)).transient


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("RATE_LIMIT_ERROR", True),
        ("UNKNOWN_ERROR", True),
        ("AUTHENTICATION_ERROR", False),
        ("SSH_KEY_NOT_FOUND_ERROR", False),
        ("AUTHORISATION_ERROR", False),
        ("RESOURCE_NOT_FOUND_ERROR", False),
        ("INVALID_ARGUMENTS_ERROR", False),
        ("ANSWER_DICTIONARY_ERROR", False),
        ("CORRUPTED_LABEL_ERROR", False),
        ("FEATURE_DOES_NOT_EXIST_ERROR", False),
        ("OPERATION_NOT_ALLOWED", False),
        ("A_NAME_THAT_THIS_SDK_DOES_NOT_KNOW", False),
    ],
)
def test_errors_that_the_legacy_api_names(
    sandbox: SandboxServer, gateway: Gateway, name: str, passes: bool
) -> None:
    sandbox.faults.add(Fault(call="label_rows.list", error=name))
    assert classify(legacy_error(gateway)).transient is passes


@pytest.mark.parametrize(("header", "seconds"), [("12", 12.0), (None, None)])
def test_retry_after_is_kept(
    sandbox: SandboxServer, gateway: Gateway, header: str | None, seconds: float | None
) -> None:
    sandbox.faults.add(Fault(call="tasks.list", status=429, retry_after=header))
    assert classify(v2_error(gateway)).retry_after == seconds


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_connection_that_is_dropped(sandbox: SandboxServer, gateway: Gateway, drop: str) -> None:
    sandbox.faults.add(Fault(call="tasks.list", drop=drop))
    assert classify(v2_error(gateway)).transient


def test_no_call_is_tried_again_within_the_sdk(sandbox: SandboxServer, gateway: Gateway) -> None:
    """The SDK would, for 9 s, with the worker process in hand."""
    gateway.agent_stage("Pre-label")
    sandbox.faults.add(Fault(call="tasks.list", status=503))
    before = sandbox.calls["tasks.list"]
    v2_error(gateway)
    assert sandbox.calls["tasks.list"] == before + 1


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ValueError("of the user's"), False),
        (DownloadError("gone"), False),
        (DownloadError("busy", transient=True, status=503), True),
    ],
)
def test_what_is_not_encords(error: Exception, passes: bool) -> None:
    assert classify(error).transient is passes


def test_what_splitting_a_bundle_can_help_with(sandbox: SandboxServer, gateway: Gateway) -> None:
    assert is_outage(RateLimitExceededError())
    sandbox.faults.add(Fault(call="tasks.list", status=503))
    looks_passing = v2_error(gateway)
    assert is_about_everything(looks_passing)
    assert not is_outage(looks_passing)
    sandbox.faults.clear()
    sandbox.faults.add(Fault(call="tasks.list", status=400))
    assert not is_about_everything(v2_error(gateway))
