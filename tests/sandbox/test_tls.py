"""The sandbox over HTTPS, and with connections that take their time."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from celery_agents.sandbox import SandboxServer
from tests.sandbox.test_command import run, serving


def test_the_command_serves_https_and_says_whom_to_trust(tmp_path: Path) -> None:
    certificate, env_file = tmp_path / "ca.pem", tmp_path / "env"
    with serving("--tls", str(certificate), "--env-file", str(env_file)) as (_, ready):
        assert ready["url"].startswith("https://127.0.0.1:")
        assert requests.get(f"{ready['url']}/sandbox/health", verify=str(certificate), timeout=10).ok
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"{ready['url']}/sandbox/health", timeout=10)
        assert f"REQUESTS_CA_BUNDLE={certificate}" in env_file.read_text()
        assert "PRIVATE" not in certificate.read_text()


def test_a_certificate_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    refused = run("sandbox", "--tls", str(tmp_path / "no" / "ca.pem"))
    assert refused.returncode == 1
    assert "Cannot write the certificate to" in refused.stderr


@pytest.mark.parametrize("tls", [False, True])
def test_a_new_connection_is_not_read_at_first(tls: bool, tmp_path: Path) -> None:
    with SandboxServer.start(tasks=0, connect_latency=0.6, tls=tls) as sandbox, requests.Session() as session:
        trusted = tmp_path / "ca.pem"
        trusted.write_text(sandbox.certificate or "")
        health, verify = f"{sandbox.url}/sandbox/health", str(trusted)
        with pytest.raises(requests.exceptions.ReadTimeout):
            session.get(health, timeout=(10, 0.1), verify=verify)
        assert session.get(health, timeout=10, verify=verify).ok
        assert session.get(health, timeout=10, verify=verify).ok
        assert sandbox.connections == 2
