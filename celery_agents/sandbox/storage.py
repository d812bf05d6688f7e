"""Folders, storage items, datasets, and the data units that datasets make of items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from .errors import ForbiddenError, InvalidArgumentsError, NotFoundError
from .identifiers import Clock, Identifiers
from .media import SAMPLE_RATE, Box, Format, MediaSpec, boxes_of


class Kind(StrEnum):
    """The kinds of data unit. The value is the storage item's type on the wire."""

    IMAGE = "image"
    IMAGE_GROUP = "imageGroup"
    IMAGE_SEQUENCE = "imageSequence"
    VIDEO = "video"
    AUDIO = "audio"
    PLAIN_TEXT = "plainText"
    PDF = "pdf"
    GROUP = "group"


DATA_TYPES = {
    Kind.IMAGE: "image",
    Kind.IMAGE_GROUP: "img_group",
    # The frames of a sequence are labelled one by one like those of a group; only the stored file differs.
    Kind.IMAGE_SEQUENCE: "img_group",
    Kind.VIDEO: "video",
    Kind.AUDIO: "audio",
    Kind.PLAIN_TEXT: "plain_text",
    Kind.PDF: "pdf",
    Kind.GROUP: "group",
}
"""What a label row calls each kind."""

FRAMES_IN_GROUP = 3
FRAMES_IN_SEQUENCE = 5
FRAMES_IN_VIDEO = 20


@dataclass(slots=True)
class Item:
    """A file, or a group of files, in a storage folder."""

    uuid: str
    folder_uuid: str
    kind: Kind
    name: str
    owner: str
    created_at: datetime
    last_edited_at: datetime
    media: MediaSpec | None
    """How to draw the file; None for an image group or a data group, which have only children."""
    children: tuple[Item, ...] = ()
    description: str = ""
    client_metadata: dict[str, Any] = field(default_factory=dict)
    backed_data_units: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One separately labelled picture of a data unit."""

    hash: str
    title: str
    item: Item


@dataclass(frozen=True, slots=True)
class DataUnit:
    """One row of a dataset: an item that can be labelled."""

    data_hash: str
    dataset_hash: str
    dataset_title: str
    item: Item
    created_at: datetime
    frames: tuple[Frame, ...]
    """One per image of a group or sequence, otherwise one that stands for the whole item."""

    @property
    def title(self) -> str:
        """The item's name."""
        return self.item.name

    @property
    def kind(self) -> Kind:
        """The item's kind."""
        return self.item.kind

    @property
    def data_type(self) -> str:
        """What label rows call this kind, in lower case."""
        return DATA_TYPES[self.item.kind]

    @property
    def number_of_frames(self) -> int:
        """How many frames labels may be put on."""
        media = self.item.media
        if self.kind is Kind.VIDEO and media is not None:
            return media.frames
        if self.kind is Kind.AUDIO and media is not None:
            return int(media.seconds * SAMPLE_RATE)
        return len(self.frames)

    @property
    def truth(self) -> tuple[Box, ...]:
        """Where the red rectangle is, frame by frame; empty for sound, text and PDF."""
        if self.kind is Kind.IMAGE_GROUP:
            return tuple(box for child in self.item.children if child.media for box in boxes_of(child.media))
        return boxes_of(self.item.media) if self.item.media else ()


@dataclass(frozen=True)
class Folder:
    """A storage folder."""

    uuid: str
    name: str
    owner: str
    created_at: datetime
    description: str = ""


@dataclass
class Dataset:
    """A dataset with its data units, in order."""

    dataset_hash: str
    title: str
    description: str
    creator_email: str
    folder_uuid: str
    has_mirror_folder: bool
    created_at: datetime
    last_edited_at: datetime
    units: dict[str, DataUnit] = field(default_factory=dict)


class Storage:
    """All folders and items."""

    def __init__(self, identifiers: Identifiers, clock: Clock) -> None:
        self._identifiers = identifiers
        self._clock = clock
        self.folders: dict[str, Folder] = {}
        self.items: dict[str, Item] = {}

    def add_folder(self, name: str, owner: str, description: str = "") -> Folder:
        """Make an empty folder."""
        folder = Folder(self._identifiers.uuid(), name, owner, self._clock(), description)
        self.folders[folder.uuid] = folder
        return folder

    def add_item(
        self, folder_uuid: str, kind: Kind, name: str, owner: str, *, seed: int | None = None
    ) -> Item:
        """Make an item of `kind` with generated media, and its children where the kind has some.

        Raises `NotFoundError` for an unknown folder.
        """
        self.folder(folder_uuid)
        build = _Blueprint(
            self, folder_uuid, name, owner, self._identifiers.number() if seed is None else seed
        )
        return _BLUEPRINTS[kind](build)

    def folder(self, uuid: str) -> Folder:
        """The folder. Raises `NotFoundError`."""
        folder = self.folders.get(uuid)
        if folder is None:
            raise NotFoundError(f"no storage folder {uuid}")
        return folder

    def items_in(self, folder_uuid: str) -> list[Item]:
        """The items of a folder, without those that are parts of a group. Raises `NotFoundError`."""
        self.folder(folder_uuid)
        here = [item for item in self.items.values() if item.folder_uuid == folder_uuid]
        parts = {child.uuid for item in here for child in item.children}
        return [item for item in here if item.uuid not in parts]

    def put(
        self,
        folder_uuid: str,
        kind: Kind,
        name: str,
        owner: str,
        media: MediaSpec | None,
        children: tuple[Item, ...] = (),
    ) -> Item:
        """Store an item whose media is given."""
        now = self._clock()
        item = Item(self._identifiers.uuid(), folder_uuid, kind, name, owner, now, now, media, children)
        self.items[item.uuid] = item
        return item

    def get(self, uuid: str) -> Item:
        """The item. Raises `NotFoundError`."""
        item = self.items.get(uuid)
        if item is None:
            raise NotFoundError(f"no storage item {uuid}")
        return item

    def get_many(self, uuids: Iterable[str]) -> list[Item]:
        """The items in the order asked. One unknown item raises `ForbiddenError` for all, as Encord does."""
        uuids = list(uuids)
        unknown = [uuid for uuid in uuids if uuid not in self.items]
        if unknown:
            raise ForbiddenError(f"no access to the storage items {', '.join(unknown)}")
        return [self.items[uuid] for uuid in uuids]

    def get_in(self, folder_uuid: str, uuid: str) -> Item:
        """The item, which must be in that folder. Raises `NotFoundError`."""
        item = self.get(uuid)
        if item.folder_uuid != folder_uuid:
            raise NotFoundError(f"no storage item {uuid} in folder {folder_uuid}")
        return item

    def patch(self, item: Item, patch: Mapping[str, Any]) -> None:
        """Change name, description or client metadata; keys are those of the wire, null means unchanged."""
        metadata = patch.get("clientMetadata")
        if metadata is not None and not isinstance(metadata, Mapping):
            raise InvalidArgumentsError("clientMetadata must be an object")
        item.name = item.name if patch.get("name") is None else str(patch["name"])
        item.description = item.description if patch.get("description") is None else str(patch["description"])
        item.client_metadata = item.client_metadata if metadata is None else dict(metadata)
        item.last_edited_at = self._clock()

    def remove_items(self, uuids: Iterable[str]) -> int:
        """Delete items with their children and answer how many are gone."""
        before = len(self.items)
        for uuid in uuids:
            item = self.items.pop(uuid, None)
            for child in item.children if item else ():
                self.items.pop(child.uuid, None)
        return before - len(self.items)

    def remove_folder(self, uuid: str) -> None:
        """Delete a folder. Raises `NotFoundError`, and `InvalidArgumentsError` while it holds items."""
        if self.items_in(uuid):
            raise InvalidArgumentsError("the folder is not empty")
        del self.folders[uuid]

    def data_unit(self, dataset: Dataset, item: Item) -> DataUnit:
        """Make a data unit of an item; the caller adds it to the dataset."""
        data_hash = self._identifiers.uuid()
        framed = item.kind in (Kind.IMAGE_GROUP, Kind.IMAGE_SEQUENCE)
        frames = (
            tuple(Frame(self._identifiers.uuid(), child.name, child) for child in item.children)
            if framed
            else (Frame(data_hash, item.name, item),)
        )
        item.backed_data_units += 1
        return DataUnit(data_hash, dataset.dataset_hash, dataset.title, item, self._clock(), frames)


@dataclass(frozen=True)
class _Blueprint:
    """What every kind of item is built from."""

    storage: Storage
    folder_uuid: str
    name: str
    owner: str
    seed: int

    def item(self, kind: Kind, media: MediaSpec | None, children: tuple[Item, ...] = ()) -> Item:
        return self.storage.put(self.folder_uuid, kind, self.name, self.owner, media, children)

    def part(self, kind: Kind, format_: Format, frames: int = 1) -> Item:
        """One file of a data group."""
        media = MediaSpec(format=format_, seed=self.seed, frames=frames)
        name = f"{self.name}-{kind.value}.{format_.value}"
        return self.storage.put(self.folder_uuid, kind, name, self.owner, media)

    def picture(self, number: int, *, seed: int, frame: int) -> Item:
        media = MediaSpec(format=Format.PNG, seed=seed, first_frame=frame)
        name = f"{self.name}-{number}.png"
        return self.storage.put(self.folder_uuid, Kind.IMAGE, name, self.owner, media)


def _image(build: _Blueprint) -> Item:
    jpeg = build.name.endswith((".jpg", ".jpeg"))
    return build.item(Kind.IMAGE, MediaSpec(format=Format.JPEG if jpeg else Format.PNG, seed=build.seed))


def _image_group(build: _Blueprint) -> Item:
    pictures = (build.picture(n, seed=build.seed + n, frame=0) for n in range(FRAMES_IN_GROUP))
    return build.item(Kind.IMAGE_GROUP, None, tuple(pictures))


def _image_sequence(build: _Blueprint) -> Item:
    pictures = (build.picture(n, seed=build.seed, frame=n) for n in range(FRAMES_IN_SEQUENCE))
    media = MediaSpec(format=Format.MP4, seed=build.seed, frames=FRAMES_IN_SEQUENCE)
    return build.item(Kind.IMAGE_SEQUENCE, media, tuple(pictures))


def _video(build: _Blueprint) -> Item:
    return build.item(Kind.VIDEO, MediaSpec(format=Format.MP4, seed=build.seed, frames=FRAMES_IN_VIDEO))


def _group(build: _Blueprint) -> Item:
    parts = (
        build.part(Kind.IMAGE, Format.PNG),
        build.part(Kind.VIDEO, Format.MP4, FRAMES_IN_VIDEO),
        build.part(Kind.PLAIN_TEXT, Format.TEXT),
    )
    return build.item(Kind.GROUP, None, parts)


def _single(kind: Kind, format_: Format) -> Callable[[_Blueprint], Item]:
    return lambda build: build.item(kind, MediaSpec(format=format_, seed=build.seed))


_BLUEPRINTS: dict[Kind, Callable[[_Blueprint], Item]] = {
    Kind.IMAGE: _image,
    Kind.IMAGE_GROUP: _image_group,
    Kind.IMAGE_SEQUENCE: _image_sequence,
    Kind.VIDEO: _video,
    Kind.AUDIO: _single(Kind.AUDIO, Format.WAV),
    Kind.PLAIN_TEXT: _single(Kind.PLAIN_TEXT, Format.TEXT),
    Kind.PDF: _single(Kind.PDF, Format.PDF),
    Kind.GROUP: _group,
}
