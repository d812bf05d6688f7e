"""One project as an agent worker needs it: its stages, and bulk reads and writes of what waits there.

Opened lazily and once per process: constructing a ``Gateway`` uses no network. The SDK's client and project hold no
socket between calls, and what ``connections`` keeps is not shared, so a gateway may be opened before a fork and used by
many threads.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any
from uuid import UUID

from encord.exceptions import AuthorisationError, ResourceNotFoundError
from encord.http.bundle import Bundle
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.project import Project
from encord.storage import StorageItem
from encord.user_client import EncordUserClient
from encord.workflow.stages.agent import AgentStage, AgentTask

from celery_agents.errors import SetupError
from celery_agents.gateway import staging
from celery_agents.gateway.classify import (
    CREDENTIAL_ERRORS,
    Trouble,
    classify,
    is_about_everything,
    is_outage,
)
from celery_agents.gateway.client import CALL_TIMEOUT, bounded, key_variable, open_client
from celery_agents.gateway.deferring import defer_row, defer_task
from celery_agents.gateway.kept import bytes_received
from celery_agents.gateway.listing import Listed, list_specs, look_up
from celery_agents.gateway.permits import BEFORE_WORK, Permit, waiting_at_most
from celery_agents.gateway.tasks import agent_task, move
from celery_agents.messages import TaskSpec

#: Data hashes in one request line. The filter travels in the URL, about 48 bytes each, and common front ends stop
#: reading a request line at 8 kB.
HASHES_PER_REQUEST = 100
#: Bytes of media that a process fetches ahead, unless it is told otherwise: a dozen photos as pixels.
MEDIA_MEMORY = 256 * 1024**2

MAIN_BRANCH = "main"


class Gateway:
    """Bulk access to one Encord project.

    Args:
        project_hash: The project.
        user_client: An authenticated client; by default one is opened from the environment at first use. Its key and
            domain are used, but no call waits and retries inside the SDK.
        call_timeout: Seconds that one call to Encord may take.
        keep_connections: Whether a call may use the connection of an earlier one.
        media_memory: Bytes of media that a process may hold ahead of the agent tasks that need them.
        permit: Asked before each call, where there is a rate limit.
    """

    def __init__(
        self,
        project_hash: UUID,
        user_client: EncordUserClient | None = None,
        call_timeout: float = CALL_TIMEOUT,
        *,
        keep_connections: bool = True,
        media_memory: int = MEDIA_MEMORY,
        permit: Permit | None = None,
    ) -> None:
        self.project_hash = project_hash
        self._given_client = user_client
        self._call_timeout = call_timeout
        self.media_memory = media_memory
        self._connecting: dict[str, Any] = {"keep_connections": keep_connections, "permit": permit}
        self._opening = threading.RLock()

    @cached_property
    def client(self) -> EncordUserClient:
        """The authenticated client. Raises SetupError where there is no key."""
        if self._given_client is not None:
            return bounded(self._given_client, self._call_timeout, **self._connecting)
        return open_client(self._call_timeout, **self._connecting)

    @property
    def domain(self) -> str:
        """The address of the Encord that is talked to."""
        return self.client.user_config.domain

    @cached_property
    def project(self) -> Project:
        """The project, fetched at first use.

        Raises:
            SetupError: The key is not accepted, or there is no such project for it.
            EncordException: Encord cannot be reached.
        """
        with self._opening:
            # Another thread may have fetched it meanwhile. It is stored here, inside: cached_property takes no lock,
            # and stores what it is given after this one has been left.
            if "project" not in self.__dict__:
                self.__dict__["project"] = self._fetch_project()
            fetched: Project = self.__dict__["project"]
            return fetched

    def _fetch_project(self) -> Project:
        try:
            project = self.client.get_project(str(self.project_hash))
        except CREDENTIAL_ERRORS as error:
            whence = f" ({key_variable()})" if self._given_client is None else ""
            raise SetupError(f"Encord does not accept this key{whence}: {error.message}") from error
        except (AuthorisationError, ResourceNotFoundError) as error:
            raise SetupError(
                f"There is no project {self.project_hash} that this key may use; check the project hash and the "
                "key's rights."
            ) from error
        except AssertionError as error:
            # The SDK asserts on a stage type that it does not know, see encord.workflow.workflow.
            raise SetupError(
                f"Project {self.project_hash} has a workflow stage that this encord SDK does not know."
            ) from error
        return project

    def agent_stages(self) -> list[AgentStage]:
        """Return the project's agent stages, in the workflow's order."""
        return [stage for stage in self.project.workflow.stages if isinstance(stage, AgentStage)]

    def agent_stage(self, stage: str | UUID) -> AgentStage:
        """Return the agent stage with this title or UUID.

        Raises:
            SetupError: There is none; the sentence names the nearest.
        """
        stages = self.agent_stages()
        found = [each for each in stages if stage in (each.title, each.uuid, str(each.uuid))]
        if len(found) == 1:
            return found[0]
        if found:
            raise SetupError(
                f"Project {self.project_hash} has {len(found)} agent stages called {stage!r}: use the UUID."
            )
        raise SetupError(self._no_such_stage(stage, stages))

    def _no_such_stage(self, stage: str | UUID, stages: Sequence[AgentStage]) -> str:
        if any(stage in (each.title, each.uuid, str(each.uuid)) for each in self.project.workflow.stages):
            return f"{str(stage)!r} is a stage of project {self.project_hash}, but not an agent stage."
        titles = [each.title for each in stages]
        if not titles:
            return f"Project {self.project_hash} has no agent stage."
        near = difflib.get_close_matches(str(stage), titles, n=3) or titles
        return (
            f"Project {self.project_hash} has no agent stage {str(stage)!r}; did you mean "
            f"{' or '.join(repr(title) for title in near)}?"
        )

    def list_specs(self, stage: AgentStage, **filters: Any) -> Iterator[TaskSpec]:
        """Yield the specs of what waits at *stage*, for a part of what ``list_tasks`` costs; see ``listing``."""
        return list_specs(stage, **filters)

    def list_tasks(self, stage: AgentStage, **filters: Any) -> Iterator[AgentTask]:
        """Yield the agent tasks at *stage*, page by page; *filters* are those of ``AgentStage.get_tasks``."""
        yield from stage.get_tasks(**filters)

    @waiting_at_most(BEFORE_WORK)
    def tasks_at(self, stage: AgentStage, data_hashes: Iterable[UUID]) -> dict[UUID, Listed]:
        """Return those agent tasks of these data units that are at *stage* now, by their UUID."""
        hashes = list(dict.fromkeys(data_hashes))
        # An empty filter would mean the whole stage: range() yields nothing for it.
        return {
            task.uuid: task
            for start in range(0, len(hashes), HASHES_PER_REQUEST)
            for task in look_up(stage, hashes[start : start + HASHES_PER_REQUEST])
        }

    def agent_task(self, known: TaskSpec | Listed, stage: AgentStage) -> AgentTask:
        """Make the agent task of which this is known, able to ``proceed`` like one from ``get_tasks``."""
        return agent_task(known, stage)

    @waiting_at_most(BEFORE_WORK)
    def label_rows(self, specs: Sequence[TaskSpec], options: Mapping[str, Any]) -> dict[UUID, LabelRowV2]:
        """Return the label row of each spec's data unit and branch, by agent task UUID, in one call.

        Labels are not read yet, see ``initialise``. A data unit that has left the project is not in the answer.

        Args:
            specs: Whose label rows.
            options: Further arguments of ``Project.list_label_rows_v2``. A ``branch_name`` there wins over the
                specs' own branches.
        """
        if not specs:
            return {}
        chosen = dict(options)
        if not chosen.get("branch_name") and any(spec.label_branch_name != MAIN_BRANCH for spec in specs):
            chosen["include_all_label_branches"] = True
        rows = self.project.list_label_rows_v2(data_hashes=[str(spec.data_hash) for spec in specs], **chosen)
        by_branch = {(UUID(row.data_hash), row.branch_name): row for row in rows}
        branch = chosen.get("branch_name")
        found = {
            spec.uuid: by_branch.get((spec.data_hash, branch or spec.label_branch_name)) for spec in specs
        }
        return {uuid: row for uuid, row in found.items() if row is not None}

    def initialise(self, rows: Sequence[LabelRowV2], options: Mapping[str, Any]) -> None:
        """Read the labels of *rows*: one call for those that have labels, one per branch for those that have none."""
        by_branch: dict[str, list[LabelRowV2]] = {}
        for row in rows:
            by_branch.setdefault(row.branch_name, []).append(row)
        # Creating label rows takes the branch of a bundle's first row for all of them, and answers by data hash.
        for branch_rows in by_branch.values():
            with Bundle() as bundle:
                for row in branch_rows:
                    if (
                        not row.is_labelling_initialised
                    ):  # else done by an earlier call, of which only a part failed
                        row.initialise_labels(bundle=bundle, **options)

    def storage_items(self, uuids: Sequence[UUID]) -> dict[UUID, StorageItem]:
        """Return storage items with signed URLs, by UUID, in one call."""
        wanted = list(dict.fromkeys(uuids))
        return (
            {item.uuid: item for item in self.client.get_storage_items(wanted, sign_url=True)}
            if wanted
            else {}
        )

    def stage_of(self, row: LabelRowV2, spec: TaskSpec) -> UUID | None:
        """Return the stage at which a label row's agent task is now; None where Encord does not say for sure."""
        node = row.workflow_graph_node
        if node is None or row.task_uuid not in (None, spec.uuid):
            return None
        return UUID(str(node.uuid))

    def new_bundle(self) -> staging.StagedBundle:
        """Return an empty bundle for the writes of one agent task, which ``send`` sends later."""
        return staging.StagedBundle()

    def defer_writes(
        self, staged: staging.StagedBundle, row: LabelRowV2 | None, task: AgentTask | None
    ) -> None:
        """Have what is written through *row* and *task* put into *staged*, unless the call names another bundle."""
        if row is not None:
            defer_row(row, staged)
        if task is not None:
            defer_task(task, staged)

    def bytes_received(self) -> int:
        """Return how many bytes this thread has received from Encord so far; 0 where the SDK keeps that to itself."""
        return bytes_received()

    def classify(self, error: BaseException) -> Trouble:
        """Return what *error* means: whether it passes, and when."""
        return classify(error)

    def judge(self, *, is_last_attempt: bool) -> Callable[[Exception], bool]:
        """Return the test of whether an error concerns no item of a refused bundle in particular.

        The SDK reports some refusals like passing trouble. While attempts are left, such an error concerns everything
        and the next attempt tells; in the last one the bundle is split, so that one bad item takes no other along.
        """
        return is_outage if is_last_attempt else is_about_everything

    def send(self, staged: Sequence[staging.StagedBundle]) -> None:
        """Send the label saves, priorities and other writes of several agent tasks, then moves of their own."""
        staging.send(staged)

    def proceed(self, stage: AgentStage, moves: Iterable[tuple[UUID, UUID]]) -> None:
        """Move agent tasks along pathways with one request, all or nothing.

        Args:
            stage: Where they are.
            moves: UUIDs of agent tasks, each with that of its pathway.
        """
        move(stage, moves)
