"""A spec can't make a worker fetch from an address of the spec's choosing, nor write where it likes.

Whatever the fields of a spec say, the only address that this process connects to is Encord's, here the sandbox's. Python
tells of every connection by an audit event, whoever makes it. The UUIDs of a spec become parts of URLs; what is no UUID is
refused before, see ``test_specs``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import requests
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.storage import StorageItem
from encord.workflow.stages.agent import AgentTask
from numpy.typing import NDArray

from celery_agents import Depends
from celery_agents.dependencies import dep_asset, dep_single_frame
from celery_agents.messages import Outcome
from celery_agents.sandbox import SandboxServer
from tests.execution.conftest import Bench, open_bench

ELSEWHERE = "http://127.0.0.1:9/elsewhere?X-Signature=1"
PATH = "../../../../../tmp/elsewhere"

#: Fields of a spec, and what becomes of it. To add a case, add a line.
CASES: dict[str, tuple[dict[str, Any], Outcome]] = {
    "nothing odd": ({}, Outcome.HELD),
    "a title that is a URL": ({"data_title": ELSEWHERE}, Outcome.HELD),
    "a title that is a path": ({"data_title": PATH}, Outcome.HELD),
    "a title that is an absolute path": ({"data_title": "/etc/passwd"}, Outcome.HELD),
    "an assignee that is a URL": ({"assignee": ELSEWHERE, "last_actioned_by": ELSEWHERE}, Outcome.HELD),
    "a branch that is a URL": ({"label_branch_name": ELSEWHERE}, Outcome.FAILED),
    "a branch that is a path": ({"label_branch_name": PATH}, Outcome.FAILED),
    "a branch with a query": ({"label_branch_name": "main?x=1&domain=elsewhere#"}, Outcome.FAILED),
    "a status that is a URL": ({"status": ELSEWHERE}, Outcome.HELD),
    "fields of a storage item": ({"signed_url": ELSEWHERE, "url": ELSEWHERE, "data_link": ELSEWHERE}, Outcome.HELD),
    "fields of a client": ({"domain": ELSEWHERE, "endpoint": ELSEWHERE, "api_client": {"domain": ELSEWHERE}}, Outcome.HELD),
    "a data unit that is not there": ({"data_hash": "00000000-0000-4000-8000-000000000000"}, Outcome.GONE),
    "an agent task that is not there": ({"uuid": "00000000-0000-4000-8000-000000000000"}, Outcome.GONE),
}  # fmt: skip

_connected: list[Any] = []
_is_listening = False


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _is_listening and event == "socket.connect":
        _connected.append(arguments[1])


@contextmanager
def connections() -> Iterator[list[Any]]:
    """Note every address that this process connects to."""
    global _is_listening  # noqa: PLW0603  (an audit hook cannot be taken back)
    _connected.clear()
    _is_listening = True
    try:
        yield _connected
    finally:
        _is_listening = False


sys.addaudithook(_note)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with SandboxServer.start(tasks=10, seed=3) as sandbox:
        yield open_bench(sandbox, keep_connections=False)  # each call shows where it goes to


@pytest.fixture(scope="module")
def image(bench: Bench) -> dict[str, Any]:
    """The spec of an image."""
    specs = (json.loads(spec) for spec in bench.specs)
    return next(spec for spec in specs if spec["data_title"].startswith("image-"))


def written(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("fields", "becomes"), CASES.values(), ids=CASES.keys())
def test_only_encord_is_connected_to(
    bench: Bench,
    image: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    becomes: Outcome,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files: list[Path] = []

    def look(
        task: AgentTask,
        label_row: LabelRowV2,
        item: StorageItem,
        file: Annotated[Path, Depends(dep_asset)],
        frame: Annotated[NDArray[np.uint8], Depends(dep_single_frame)],
    ) -> None:
        files.append(file)
        assert written(tmp_path) == {file}

    with connections() as made:
        (outcome,) = bench.execute(look, [json.dumps({**image, **fields})]).outcomes
    assert outcome.outcome is becomes, outcome.error
    port = int(bench.sandbox.url.rpartition(":")[2])
    assert {address[1] for address in made} == {port}
    for file in files:
        assert file.parent.parent == tmp_path
        assert file.stem.count("-") == 4  # the storage item's UUID, and nothing of the spec
    assert written(tmp_path) == set()


def test_connections_are_noted(bench: Bench, image: dict[str, Any]) -> None:
    """Else the test above would show nothing."""

    def fetch(row: LabelRowV2, task: AgentTask) -> None:
        requests.get(task.data_title, timeout=1)

    with connections() as made:
        bench.execute(fetch, [json.dumps({**image, "data_title": ELSEWHERE})])
    assert ("127.0.0.1", 9) in made
