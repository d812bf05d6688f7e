"""A running sandbox with one data unit of every kind, and the real SDK pointed at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from encord import EncordUserClient, Project
from encord.http.constants import RequestsSettings
from encord.http.v2.request_signer import sign_request
from encord.objects import LabelRowV2, Object
from encord.objects.coordinates import BoundingBoxCoordinates
from encord.workflow import AgentStage
from encord.workflow.stages.agent import AgentTask

from celery_agents.sandbox import Project as ProjectState
from celery_agents.sandbox import SandboxServer
from celery_agents.sandbox.signatures import public_key_of

KINDS = 7
"""As many data units make one of each kind."""


class SettableClock:
    """The present, moved ahead at will."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def sandbox(clock: SettableClock) -> Iterator[SandboxServer]:
    with SandboxServer.start(tasks=KINDS, seed=7, page_size=3, clock=clock) as server:
        yield server


@pytest.fixture
def client(sandbox: SandboxServer) -> EncordUserClient:
    return connect(sandbox)


@pytest.fixture
def project(client: EncordUserClient, sandbox: SandboxServer) -> Project:
    return client.get_project(sandbox.project_hash)


@pytest.fixture
def state(sandbox: SandboxServer) -> ProjectState:
    """The same project, seen from inside."""
    return sandbox.state.project(sandbox.project_hash)


@pytest.fixture
def stage(project: Project) -> AgentStage:
    return project.workflow.get_stage(name="Pre-label", type_=AgentStage)


@pytest.fixture
def row_of(project: Project, state: ProjectState) -> Callable[[str], LabelRowV2]:
    """The initialised label row of the first data unit of a kind."""

    def row_of(kind: str) -> LabelRowV2:
        data_hash = hash_of(state, kind)
        (row,) = project.list_label_rows_v2(data_hashes=[data_hash])
        row.initialise_labels()
        return row

    return row_of


def connect(sandbox: SandboxServer, key: str | None = None, *, max_retries: int = 0) -> EncordUserClient:
    settings = RequestsSettings(max_retries=max_retries, backoff_factor=0)
    return EncordUserClient.create_with_ssh_private_key(
        key or sandbox.private_key, domain=sandbox.url, requests_settings=settings
    )


def hash_of(state: ProjectState, kind: str) -> str:
    return next(hash_ for hash_, unit in state.units.items() if unit.kind.value == kind)


def add_box(row: LabelRowV2, project: Project, frame: int = 0, x: float = 0.25) -> str:
    """Put a box on a frame; its object hash."""
    ontology_object = project.ontology_structure.get_child_by_title("Object", type_=Object)
    instance = ontology_object.create_instance()
    box = BoundingBoxCoordinates(height=0.25, width=0.5, top_left_x=x, top_left_y=0.5)
    instance.set_for_frames(box, frames=frame)
    row.add_object_instance(instance)
    return str(instance.object_hash)


def signed(
    sandbox: SandboxServer, method: str, path: str, body: Any = None, *, key: str | None = None
) -> requests.PreparedRequest:
    """A v2 request, signed by the SDK's own signer, for tests to send or to spoil."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    private = key or sandbox.private_key
    request = requests.Request(method, f"{sandbox.url}/v2/public/{path}", json=body).prepare()
    loaded: Any = load_ssh_private_key(private.encode(), password=None)
    return sign_request(request, public_key_of(private), loaded)


def send(request: requests.PreparedRequest) -> requests.Response:
    with requests.Session() as session:
        return session.send(request, timeout=10)


def proceed_all(project: Project, moves: Iterable[tuple[AgentTask, str]]) -> None:
    """Send agent tasks down their pathways in one request."""
    with project.create_bundle() as bundle:
        for task, pathway in moves:
            task.proceed(pathway, bundle=bundle)
