"""No client waits inside a call, whoever made it."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from encord.exceptions import UnknownException
from encord.http.constants import RequestsSettings
from encord.user_client import EncordUserClient

from celery_agents.gateway.client import requests_settings
from celery_agents.gateway.project import Gateway
from celery_agents.sandbox import Fault, SandboxServer


@pytest.mark.parametrize("settings", [RequestsSettings(), RequestsSettings(max_retries=9, read_timeout=5)])
def test_a_client_of_the_users_is_bounded(settings: RequestsSettings) -> None:
    with SandboxServer.start(tasks=1) as sandbox:
        traces: list[str] = []

        def trace() -> str:
            traces.append("a" * 32 + "/1;o=1")
            return traces[-1]

        settings.trace_id_provider = trace
        theirs = EncordUserClient.create_with_ssh_private_key(
            sandbox.private_key, domain=sandbox.url, requests_settings=settings
        )
        gateway = Gateway(UUID(sandbox.project_hash), theirs)
        stage = gateway.agent_stage("Pre-label")
        sandbox.faults.add(Fault(call="tasks.list", status=503))
        before = sandbox.calls["tasks.list"]
        with pytest.raises(UnknownException):
            gateway.tasks_at(stage, [uuid4()])
        assert sandbox.calls["tasks.list"] == before + 1
        assert gateway.client.user_config.read_timeout == min(
            settings.read_timeout, requests_settings().read_timeout
        )
        assert traces
        assert theirs.user_config.requests_settings is settings  # what is the user's stays as it was
