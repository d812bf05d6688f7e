"""Both signature schemes are verified for real: the SDK's pass, spoiled ones do not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import requests
from encord import EncordUserClient, Project
from encord.exceptions import AuthenticationError, SshKeyNotFound
from encord.http.constants import RequestsSettings

from celery_agents.sandbox import Project as ProjectState
from celery_agents.sandbox import SandboxServer, signatures
from celery_agents.sandbox.errors import NotAuthenticatedError

from .conftest import SettableClock, connect, send, signed


def test_the_sdks_own_signatures_pass(project: Project) -> None:
    assert project.title == "Sandbox project"  # v2
    assert project.list_label_rows_v2()  # legacy


def test_v2_refuses_an_unknown_key(sandbox: SandboxServer) -> None:
    with pytest.raises(AuthenticationError):
        connect(sandbox, signatures.new_private_key()).get_project(sandbox.project_hash)


def test_legacy_refuses_an_unknown_key(project: Project) -> None:
    stranger = signatures.new_private_key()
    config: Any = connect_config(project, stranger)
    project._client._querier._config = config

    with pytest.raises(SshKeyNotFound):
        project.list_label_rows_v2()


def connect_config(project: Project, key: str) -> object:
    from encord.configs import SshConfig

    domain = project._client._config.domain
    settings = RequestsSettings(max_retries=0)
    return SshConfig.from_ssh_private_key(key, None, domain=domain, requests_settings=settings)


def spoil(request: requests.PreparedRequest, header: str, old: str, new: str) -> None:
    value = str(request.headers[header])
    assert old in value
    request.headers[header] = value.replace(old, new)


def test_a_signed_request_by_hand_passes(sandbox: SandboxServer) -> None:
    assert send(signed(sandbox, "GET", f"projects/{sandbox.project_hash}")).status_code == 200


@pytest.mark.parametrize("header", ["Content-Digest", "Signature-Input", "Signature"])
def test_each_header_is_needed(sandbox: SandboxServer, header: str) -> None:
    request = signed(sandbox, "GET", f"projects/{sandbox.project_hash}")
    del request.headers[header]

    response = send(request)

    assert response.status_code == 401
    assert header.lower() in response.json()["message"]


def test_the_target_is_covered(sandbox: SandboxServer) -> None:
    request = signed(sandbox, "GET", "projects")
    request.url = str(request.url) + "?titleEq=other"
    assert send(request).status_code == 401


def test_the_method_is_covered(sandbox: SandboxServer) -> None:
    request = signed(sandbox, "GET", f"projects/{sandbox.project_hash}")
    request.method = "DELETE"
    assert send(request).status_code == 401
    assert sandbox.state.projects
    (refused,) = sandbox.audit.records("projects.delete")
    assert (refused.accepted, refused.who) == (False, "nobody")


def test_the_body_is_covered(sandbox: SandboxServer) -> None:
    request = signed(sandbox, "POST", f"projects/{sandbox.project_hash}/priorities", {"priorities": []})
    request.body = b'{"priorities": {}}'
    assert "Content-Digest" in send(request).json()["message"]


def test_the_parameters_are_covered(sandbox: SandboxServer) -> None:
    request = signed(sandbox, "GET", "projects")
    spoil(request, "Signature-Input", "created=1", "created=2")
    assert send(request).status_code == 401
    spoil(request, "Signature-Input", '"@method"', '"@authority"')
    assert "not what an Encord client sends" in send(request).json()["message"]


def test_a_signature_that_is_no_base64(sandbox: SandboxServer) -> None:
    request = signed(sandbox, "GET", "projects")
    request.headers["Signature"] = "encord-sig=:!!!:"
    assert send(request).status_code == 401


# It gets younger while it is under way, so the first has some time.
@pytest.mark.parametrize("ahead", [-330, 301])
def test_a_signature_ages(sandbox: SandboxServer, clock: SettableClock, ahead: int) -> None:
    request = signed(sandbox, "GET", "projects")
    clock.ahead = timedelta(seconds=ahead)
    assert "300 seconds" in send(request).json()["message"]
    clock.ahead = timedelta(seconds=ahead // 2)
    assert send(request).status_code == 200


def legacy(sandbox: SandboxServer, authorization: str | None) -> Any:
    body = (
        b'{"query_type": "labelrowmetadata", "query_method": "GET", "values": {"uid": null, "payload": {}}}'
    )
    headers = {"ResourceType": "project", "ResourceID": sandbox.project_hash}
    if authorization is not None:
        headers["Authorization"] = authorization
    return requests.post(f"{sandbox.url}/public", body, headers=headers, timeout=10).json()


@pytest.mark.parametrize(
    "authorization", [None, "", "nonsense", "00:zz", "zz:00", "ab" * 32 + ":" + "00" * 64]
)
def test_legacy_refuses_bad_signatures(sandbox: SandboxServer, authorization: str | None) -> None:
    answer = legacy(sandbox, authorization)
    assert (answer["status"], answer["response"]) == (401, ["AUTHENTICATION_ERROR"])


def test_legacy_covers_the_body(sandbox: SandboxServer) -> None:
    from encord.configs import SshConfig

    config = SshConfig.from_ssh_private_key(sandbox.private_key, None, domain=sandbox.url)
    signature = config.define_headers("", "", "another body")["Authorization"]
    assert legacy(sandbox, signature)["response"] == ["AUTHENTICATION_ERROR"]


def test_bearer_tokens_pass_on_both_apis(
    client: EncordUserClient, sandbox: SandboxServer, state: ProjectState
) -> None:
    token = client.get_bearer_token()
    by_token = EncordUserClient.create_with_bearer_token(token, domain=sandbox.url)

    project = by_token.get_project(state.project_hash)

    assert len(project.list_label_rows_v2()) == len(state.units)
    stranger = EncordUserClient.create_with_bearer_token("made-up", domain=sandbox.url)
    with pytest.raises(AuthenticationError):
        stranger.get_project(state.project_hash)


def test_keys_of_other_kinds_are_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    other = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    with pytest.raises(ValueError, match="ed25519"):
        signatures.public_key_of(other.decode())
    with pytest.raises(NotAuthenticatedError, match="hexadecimal"):
        signatures.verify_v1("not hex:00", b"")


def test_the_private_key_is_never_shown(sandbox: SandboxServer, caplog: pytest.LogCaptureFixture) -> None:
    send(signed(sandbox, "GET", "no/such/route"))

    secret = sandbox.private_key.splitlines()[2]
    assert secret not in repr(sandbox) + repr(vars(sandbox.state)) + caplog.text
