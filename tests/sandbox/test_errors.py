"""Every error of both APIs, as the SDK raises it; unknown routes say loudly what they are."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from encord import EncordUserClient, Project
from encord import exceptions as sdk

from celery_agents.sandbox import Fault, Limits, SandboxServer
from celery_agents.sandbox import Project as ProjectState
from celery_agents.sandbox.errors import SandboxError
from celery_agents.sandbox.wire import ERRORS

from .conftest import KINDS, send, signed

V2_STATUSES: list[tuple[int, type[Exception]]] = [
    (400, sdk.InvalidArgumentsError),
    (401, sdk.AuthenticationError),
    (403, sdk.AuthorisationError),
    (404, sdk.ResourceNotFoundError),
    (405, sdk.MethodNotAllowedError),
    (409, sdk.ResourceExistsError),
    (413, sdk.PayloadTooLargeError),
    (422, sdk.UnknownException),
    (429, sdk.RateLimitExceededError),
    (500, sdk.UnknownException),
    (502, sdk.UnknownException),
    (503, sdk.UnknownException),
    (504, sdk.UnknownException),
]


@pytest.mark.parametrize(("status", "error"), V2_STATUSES)
def test_v2_statuses(project: Project, sandbox: SandboxServer, status: int, error: type[Exception]) -> None:
    sandbox.faults.add(Fault(call="projects.get", status=status))

    with pytest.raises(error) as caught:
        project.refetch_data()

    assert type(caught.value) is error
    keeps_message = status not in (404, 405, 429)
    assert ("told to fail" in str(caught.value)) is keeps_message


LEGACY_NAMES: list[tuple[str, type[Exception]]] = [
    ("AUTHENTICATION_ERROR", sdk.AuthenticationError),
    ("SSH_KEY_NOT_FOUND_ERROR", sdk.SshKeyNotFound),
    ("AUTHORISATION_ERROR", sdk.AuthorisationError),
    ("RESOURCE_NOT_FOUND_ERROR", sdk.ResourceNotFoundError),
    ("INVALID_ARGUMENTS_ERROR", sdk.InvalidArgumentsError),
    ("ANSWER_DICTIONARY_ERROR", sdk.AnswerDictionaryError),
    ("CORRUPTED_LABEL_ERROR", sdk.CorruptedLabelError),
    ("FEATURE_DOES_NOT_EXIST_ERROR", sdk.FeatureDoesNotExistError),
    ("OPERATION_NOT_ALLOWED", sdk.OperationNotAllowed),
    ("RESOURCE_EXISTS_ERROR", sdk.ResourceExistsError),
    ("WRONG_PROJECT_TYPE_ERROR", sdk.WrongProjectTypeError),
    ("RATE_LIMIT_ERROR", sdk.RateLimitExceededError),
    ("UNKNOWN_ERROR", sdk.UnknownException),
    ("ANYTHING_ELSE", sdk.GenericServerError),
]


@pytest.mark.parametrize(("name", "error"), LEGACY_NAMES)
def test_legacy_names(project: Project, sandbox: SandboxServer, name: str, error: type[Exception]) -> None:
    sandbox.faults.add(Fault(call="label_rows.list", error=name))

    with pytest.raises(error) as caught:
        project.list_label_rows_v2()

    assert type(caught.value) is error


LEGACY_STATUSES: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"status": 503}, sdk.GenericServerError),
    ({"status": 503, "html": True}, sdk.RequestException),
    ({"status": 429, "retry_after": "7"}, sdk.RateLimitExceededError),
    ({"status": 413}, sdk.PayloadTooLargeError),
]


@pytest.mark.parametrize(("fault", "error"), LEGACY_STATUSES)
def test_legacy_statuses(
    project: Project, sandbox: SandboxServer, fault: dict[str, Any], error: type[Exception]
) -> None:
    sandbox.faults.add(Fault(call="label_rows.list", **fault))

    with pytest.raises(error) as caught:
        project.list_label_rows_v2()

    assert type(caught.value) is error
    assert getattr(caught.value, "retry_after", None) == (7 if "retry_after" in fault else None)


def test_every_error_of_the_rules_has_a_place_on_the_wire() -> None:
    def leaves(parent: type[SandboxError]) -> set[type[SandboxError]]:
        return {parent}.union(*(leaves(child) for child in parent.__subclasses__()))

    assert ERRORS.keys() == leaves(SandboxError) - {SandboxError}


def test_an_unknown_v2_route_names_itself(
    client: EncordUserClient, sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(sdk.UnknownException, match="GET /v2/public/no/such/route"),
    ):
        client._api_client.get("no/such/route", params=None, result_type=str)

    assert "GET /v2/public/no/such/route" in caplog.text
    assert sandbox.calls["unknown"] == 1
    (record,) = sandbox.audit.records("unknown", accepted=False)
    assert "no/such/route" in record.detail["reason"]


def test_an_unknown_legacy_query_names_itself(project: Project, sandbox: SandboxServer) -> None:
    with pytest.raises(sdk.GenericServerError, match=r"NOT_EMULATED.*query type 'labellog' and method 'GET'"):
        project._client.get_label_logs()
    assert sandbox.calls["unknown"] == 1


def test_an_unknown_path_at_all(sandbox: SandboxServer) -> None:
    response = send(signed(sandbox, "POST", "../../elsewhere"))
    assert response.status_code == 501
    assert "POST /elsewhere" in response.json()["message"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "projects/{P}/workflow/stages/{S}/actions", {"not": "a list"}),
        ("POST", "projects/{P}/workflow/stages/{S}/actions", [{"action": "PATHWAY_ACTION"}]),
        ("POST", "projects/{P}/workflow/stages/{S}/actions", ["text"]),
        ("POST", "projects/{P}/workflow/stages/{S}/move-tasks", {"taskUuids": "one"}),
        ("POST", "projects/{P}/priorities", {"priorities": [["x", "high"]]}),
        ("POST", "storage/items/get-bulk", {"itemUuids": [1]}),
        ("POST", "storage/items/get-bulk", {"itemUuids": [], "signUrls": "yes"}),
        ("PATCH", "storage/items/patch-bulk", {"itemPatches": []}),
        ("POST", "ontologies", None),
    ],
)
def test_malformed_bodies(
    sandbox: SandboxServer, state: ProjectState, method: str, path: str, body: Any
) -> None:
    path = path.format(P=sandbox.project_hash, S=state.workflow.start.uuid)
    response = send(signed(sandbox, method, path, body))
    assert response.status_code == 422
    assert response.json()["message"]


def test_a_body_that_is_no_json(sandbox: SandboxServer) -> None:
    from encord.http.v2.request_signer import sign_request

    request = signed(sandbox, "POST", "ontologies", {})
    request.prepare_body(b"{", None)
    config = connect_config(sandbox)
    response = send(sign_request(request, config.public_key_hex, config.private_key))
    assert response.status_code == 422


def connect_config(sandbox: SandboxServer) -> Any:
    from encord.configs import SshConfig

    return SshConfig.from_ssh_private_key(sandbox.private_key, None, domain=sandbox.url)


def test_a_long_request_line_is_refused(project: Project, state: ProjectState) -> None:
    stage = project.workflow.get_stage(name="Pre-label")
    few, many = [next(iter(state.units))] * 1000, [next(iter(state.units))] * 1500

    assert len(list(stage.get_tasks(data_hash=few))) == 1
    with pytest.raises(sdk.UnknownException, match="request line"):
        list(stage.get_tasks(data_hash=many))


def test_a_large_body_is_refused() -> None:
    with SandboxServer.start(tasks=KINDS, limits=Limits(body=1000)) as small:
        from .conftest import connect

        client = connect(small)
        with pytest.raises(sdk.PayloadTooLargeError, match="limit of 1000"):
            client.create_ontology("x" * 2000)
        project = client.get_project(small.project_hash)
        with pytest.raises(sdk.PayloadTooLargeError):
            project.list_label_rows_v2(data_hashes=["x" * 2000])


def test_errors_carry_their_context(project: Project, sandbox: SandboxServer) -> None:
    sandbox.faults.add(Fault(call="projects.get", status=429, retry_after="30"))
    with pytest.raises(sdk.RateLimitExceededError) as caught:
        project.refetch_data()

    assert caught.value.retry_after == 30
    assert caught.value.context is not None
    # What the SDK does, and why such an error must be looked at in the process where it arises.
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(caught.value))
