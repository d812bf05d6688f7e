"""A local server that the unmodified Encord SDK cannot tell from Encord, for agent workflows.

    with SandboxServer.start(tasks=20, seed=7) as sandbox:
        client = EncordUserClient.create_with_ssh_private_key(sandbox.private_key, domain=sandbox.url)
        project = client.get_project(sandbox.project_hash)

It is a peer at the other end of a wire: it imports nothing of the rest of `celery_agents`, and not the SDK.
"""

from .app import Limits
from .audit import Audit, AuditRecord
from .backlog import Task
from .errors import SandboxError
from .faults import Fault, Faults
from .label_rows import LabelRow
from .media import Box
from .ontologies import Editor, Ontology
from .projects import Project
from .seed import kinds, seed_project
from .server import SandboxServer, Settings
from .state import Sandbox, WorkflowTemplate
from .storage import Dataset, DataUnit, Item, Kind
from .workflow import StageSpec, StageType

__all__ = [
    "Audit",
    "AuditRecord",
    "Box",
    "DataUnit",
    "Dataset",
    "Editor",
    "Fault",
    "Faults",
    "Item",
    "Kind",
    "LabelRow",
    "Limits",
    "Ontology",
    "Project",
    "Sandbox",
    "SandboxError",
    "SandboxServer",
    "Settings",
    "StageSpec",
    "StageType",
    "Task",
    "WorkflowTemplate",
    "kinds",
    "seed_project",
]
