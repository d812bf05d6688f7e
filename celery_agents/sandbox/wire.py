"""The state in the JSON shapes of Encord's v2 API, and errors in those of both APIs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from .backlog import Task
from .errors import (
    AlreadyExistsError,
    AnswerMissingError,
    CorruptedLabelError,
    FeatureUnknownError,
    ForbiddenError,
    InvalidArgumentsError,
    LabelLimitError,
    MalformedError,
    NotAuthenticatedError,
    NotEmulatedError,
    NotFoundError,
    SandboxError,
    TooLargeError,
    UnknownKeyError,
)
from .media import SAMPLE_RATE, MediaCache, MediaSpec
from .ontologies import Ontology
from .projects import Project
from .signed_urls import UrlSigner
from .storage import Dataset, Folder, Item, Kind
from .workflow import Stage, StageType

Json = dict[str, Any]

_ADMIN = 0

ERRORS: dict[type[SandboxError], tuple[int, str]] = {
    NotAuthenticatedError: (401, "AUTHENTICATION_ERROR"),
    UnknownKeyError: (401, "SSH_KEY_NOT_FOUND_ERROR"),
    ForbiddenError: (403, "AUTHORISATION_ERROR"),
    NotFoundError: (404, "RESOURCE_NOT_FOUND_ERROR"),
    InvalidArgumentsError: (400, "INVALID_ARGUMENTS_ERROR"),
    MalformedError: (422, "INVALID_ARGUMENTS_ERROR"),
    AlreadyExistsError: (409, "RESOURCE_EXISTS_ERROR"),
    TooLargeError: (413, "PAYLOAD_TOO_LARGE_ERROR"),
    LabelLimitError: (400, "MULTI_LABEL_LIMIT_ERROR"),
    CorruptedLabelError: (400, "CORRUPTED_LABEL_ERROR"),
    FeatureUnknownError: (400, "FEATURE_DOES_NOT_EXIST_ERROR"),
    AnswerMissingError: (400, "ANSWER_DICTIONARY_ERROR"),
    # The SDK drops the message of a 404 and of a 405, and this one must be read.
    NotEmulatedError: (501, "NOT_EMULATED_BY_THE_SANDBOX"),
}
"""Each error as v2's HTTP status and as the legacy API's name."""


@dataclass(frozen=True)
class Urls:
    """Makes signed URLs that lead back to the address under which the caller knows the server."""

    signer: UrlSigner
    base_url: str

    def of(self, item: Item) -> str | None:
        """A signed URL of the item's file; None for an image group or a data group, which have no file of their own."""
        if item.media is None:
            return None
        return self.signer.sign(self.base_url, f"{item.uuid}.{item.media.format.value}")


def v2_error(error: SandboxError) -> tuple[int, Json]:
    """Status and body of a refusal in v2."""
    return ERRORS[type(error)][0], {"message": error.detail}


def legacy_error(error: SandboxError) -> Json:
    """The legacy envelope of a refusal."""
    status, name = ERRORS[type(error)]
    payload: Any = error.detail
    if isinstance(error, LabelLimitError):
        payload = {"maximum_labels_allowed": error.maximum}
    return {"status": status, "response": [name], "payload": payload}


def page(results: Sequence[Json], token: str | None = None) -> Json:
    """A page of results."""
    return {"results": results, "nextPageToken": token}


def project(project: Project) -> Json:
    """`ProjectDTO`."""
    return {
        "projectHash": project.project_hash,
        "projectType": "workflow",
        "status": project.status,
        "title": project.title,
        "description": project.description,
        "createdAt": project.created_at.isoformat(),
        "creatorEmail": project.creator_email,
        "lastEditedAt": project.last_edited_at.isoformat(),
        "ontologyHash": project.ontology.ontology_hash,
        "editorOntology": project.ontology.editor,
        "userRole": _ADMIN,
        "sourceProjects": None,
        "workflowManagerUuid": None,
        "workflow": {"stages": [_stage(stage) for stage in project.workflow.stages.values()]},
    }


def ontology(ontology: Ontology) -> Json:
    """`OntologyWithUserRole`."""
    return {
        "ontologyUuid": ontology.ontology_hash,
        "title": ontology.title,
        "description": ontology.description,
        "editor": ontology.editor,
        "createdAt": ontology.created_at.isoformat(),
        "lastEditedAt": ontology.last_edited_at.isoformat(),
        "userRole": _ADMIN,
    }


def project_dataset(dataset: Dataset) -> Json:
    """`ProjectDataset`."""
    return {"datasetHash": dataset.dataset_hash, "title": dataset.title, "description": dataset.description}


def dataset(dataset: Dataset) -> Json:
    """`DatasetWithUserRole`."""
    return {
        "datasetUuid": dataset.dataset_hash,
        "title": dataset.title,
        "description": dataset.description,
        "createdAt": dataset.created_at.isoformat(),
        "lastEditedAt": dataset.last_edited_at.isoformat(),
        "userRole": "admin",
        "storageLocation": 0,
        "backingFolderUuid": dataset.folder_uuid if dataset.has_mirror_folder else None,
    }


def task(task: Task) -> Json:
    """`AgentTask`; other stages' tasks take what they know of it."""
    return {
        "uuid": task.uuid,
        "createdAt": task.created_at.isoformat(),
        "updatedAt": task.updated_at.isoformat(),
        "status": task.status,
        "dataHash": task.data_hash,
        "dataTitle": task.data_title,
        "labelBranchName": task.branch,
        "assignee": task.assignee,
        "lastActionedBy": task.last_actioned_by,
    }


def folder(folder: Folder) -> Json:
    """`StorageFolder`."""
    return {
        "uuid": folder.uuid,
        "parent": None,
        "name": folder.name,
        "description": folder.description,
        "clientMetadata": None,
        "owner": folder.owner,
        "createdAt": folder.created_at.isoformat(),
        "lastEditedAt": folder.created_at.isoformat(),
        "userRole": "admin",
        "syncedDatasetHash": None,
        "pathToRoot": [],
    }


def storage_item(item: Item, cache: MediaCache, urls: Urls | None) -> Json:
    """`StorageItem`; with `urls`, its signed URL."""
    return {
        "uuid": item.uuid,
        "parent": item.folder_uuid,
        "itemType": item.kind.value,
        "name": item.name,
        "description": item.description,
        "clientMetadata": orjson.dumps(item.client_metadata).decode(),
        "owner": item.owner,
        "createdAt": item.created_at.isoformat(),
        "lastEditedAt": item.last_edited_at.isoformat(),
        "isTombstone": False,
        "isPlaceholder": False,
        "backedDataUnitsCount": item.backed_data_units,
        "storageLocation": "encord",
        "integrationHash": None,
        "url": None,
        "signedUrl": urls.of(item) if urls else None,
        "dicomInstanceUid": None,
        "dicomStudyUid": None,
        "dicomSeriesUid": None,
        **facts(item, cache),
    }


def facts(item: Item, cache: MediaCache) -> Json:
    """What is known of the item's file; `fileSize` only once the file was drawn."""
    media = item.media
    if media is None:
        return {**_NOTHING_KNOWN, "frameCount": len(item.children)}
    known = {"mimeType": media.mime_type, "fileSize": cache.size_of(media)}
    return {**_NOTHING_KNOWN, **known, **_FACTS.get(item.kind, _no_facts)(media)}


def _stage(stage: Stage) -> Json:
    node: Json = {"stageType": stage.type.value, "uuid": stage.uuid, "title": stage.title}
    if stage.type is StageType.AGENT:
        node["pathways"] = [
            {"uuid": pathway.uuid, "title": pathway.title, "destinationUuid": pathway.destination_uuid}
            for pathway in stage.pathways
        ]
    return node


def _no_facts(_media: MediaSpec) -> Json:
    return {}


def _picture_facts(media: MediaSpec) -> Json:
    return {"width": media.width, "height": media.height, "frameCount": media.frames}


def _video_facts(media: MediaSpec) -> Json:
    return {**_picture_facts(media), "fps": media.fps, "duration": media.frames / media.fps}


def _sound_facts(media: MediaSpec) -> Json:
    return {
        "duration": media.seconds,
        "audioSampleRate": SAMPLE_RATE,
        "audioBitDepth": 16,
        "audioCodec": "pcm_s16le",
        "audioNumChannels": 1,
    }


_NOTHING_KNOWN: Json = dict.fromkeys(
    (
        *("fileSize", "mimeType", "duration", "fps", "height", "width", "frameCount"),
        *("audioSampleRate", "audioBitDepth", "audioCodec", "audioNumChannels"),
    )
)
_FACTS: dict[Kind, Callable[[MediaSpec], Json]] = {
    Kind.IMAGE: _picture_facts,
    Kind.IMAGE_SEQUENCE: _video_facts,
    Kind.VIDEO: _video_facts,
    Kind.AUDIO: _sound_facts,
}
