"""Ontologies: their editor structure, and which feature hashes it contains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .identifiers import Identifiers


@dataclass(frozen=True)
class Feature:
    """What the ontology says of one object or classification."""

    hash: str
    name: str
    shape: str | None
    """The shape of an object; None for a classification."""
    attributes: Mapping[str, str]
    """Attribute hash to its type (`radio`, `checklist`, `text`), nested ones included."""
    options: frozenset[str]
    """The hashes of all options of those attributes."""


@dataclass
class Ontology:
    """An ontology as Encord stores it. Assign `editor` as a whole; its parts are read once."""

    ontology_hash: str
    title: str
    description: str
    editor: Mapping[str, Any]
    created_at: datetime
    last_edited_at: datetime
    creator_email: str
    _features: dict[str, Feature] | None = field(default=None, repr=False)

    def replace(self, *, title: str, description: str, editor: Mapping[str, Any], at: datetime) -> None:
        """Store an edited ontology."""
        self.title, self.description, self.editor, self.last_edited_at = title, description, editor, at
        self._features = None

    @property
    def features(self) -> Mapping[str, Feature]:
        """Every object and classification by feature hash."""
        if self._features is None:
            self._features = {feature.hash: feature for feature in _features_in(self.editor)}
        return self._features

    def named(self, name: str) -> Feature:
        """The object or classification of this name. Raises KeyError with the names there are."""
        for feature in self.features.values():
            if feature.name == name:
                return feature
        raise KeyError(
            f"no feature {name!r}, there are {[feature.name for feature in self.features.values()]}"
        )


def _features_in(editor: Mapping[str, Any]) -> Iterator[Feature]:
    for entry in editor.get("objects") or ():
        yield _feature(entry, name=entry["name"], shape=entry["shape"])
    for entry in editor.get("classifications") or ():
        yield _feature(entry, name=entry["attributes"][0]["name"], shape=None)


def _feature(entry: Mapping[str, Any], *, name: str, shape: str | None) -> Feature:
    attributes: dict[str, str] = {}
    options: set[str] = set()
    _collect(entry.get("attributes") or (), attributes, options)
    return Feature(entry["featureNodeHash"], name, shape, attributes, frozenset(options))


def _collect(entries: Any, attributes: dict[str, str], options: set[str]) -> None:
    for attribute in entries:
        attributes[attribute["featureNodeHash"]] = attribute["type"]
        for option in attribute.get("options") or ():
            options.add(option["featureNodeHash"])
            _collect(option.get("options") or (), attributes, options)


class Editor:
    """Builds the editor structure of an ontology, numbering and hashing as Encord does.

    >>> editor = Editor(Identifiers(0))
    >>> editor.add_object("Object").add_radio("Size", "small", "large").structure["objects"][0]["name"]
    'Object'
    """

    def __init__(self, identifiers: Identifiers) -> None:
        self._identifiers = identifiers
        self._objects: list[dict[str, Any]] = []
        self._classifications: list[dict[str, Any]] = []

    def add_object(self, name: str, *, shape: str = "bounding_box", color: str = "#D33115") -> Editor:
        """Add an object; `with_radio` and `with_text` give it attributes."""
        self._objects.append(
            {
                "id": str(len(self._objects) + 1),
                "name": name,
                "color": color,
                "shape": shape,
                "featureNodeHash": self._identifiers.feature_hash(),
                "required": False,
                "archived": False,
                "attributes": [],
            }
        )
        return self

    def add_radio(self, name: str, *labels: str) -> Editor:
        """Add a classification with one choice of several labels."""
        return self._classify(name, "radio", labels)

    def add_checklist(self, name: str, *labels: str) -> Editor:
        """Add a classification with any choice of several labels."""
        return self._classify(name, "checklist", labels)

    def add_text(self, name: str) -> Editor:
        """Add a classification with free text."""
        return self._classify(name, "text", ())

    def with_radio(self, name: str, *labels: str) -> Editor:
        """Give the object that was added last a choice of one of several labels."""
        return self._describe(name, "radio", labels)

    def with_text(self, name: str) -> Editor:
        """Give the object that was added last a free text."""
        return self._describe(name, "text", ())

    @property
    def structure(self) -> dict[str, Any]:
        """The structure as it travels in an ontology's `editor`."""
        return {
            "objects": self._objects,
            "classifications": self._classifications,
            "skeleton_templates": [],
        }

    def _describe(self, name: str, kind: str, labels: Sequence[str]) -> Editor:
        last = self._objects[-1]
        number = f"{last['id']}.{len(last['attributes']) + 1}"
        last["attributes"].append(self._attribute(number, name, kind, labels))
        return self

    def _classify(self, name: str, kind: str, labels: Sequence[str]) -> Editor:
        number = str(len(self._classifications) + 1)
        attribute = self._attribute(f"{number}.1", name, kind, labels)
        self._classifications.append(
            {
                "id": number,
                "featureNodeHash": self._identifiers.feature_hash(),
                "attributes": [attribute],
            }
        )
        return self

    def _attribute(self, number: str, name: str, kind: str, labels: Sequence[str]) -> dict[str, Any]:
        options = [
            {
                "id": f"{number}.{place}",
                "label": label,
                "value": label.lower().replace(" ", "_"),
                "featureNodeHash": self._identifiers.feature_hash(),
                "archived": False,
            }
            for place, label in enumerate(labels, start=1)
        ]
        return {
            "id": number,
            "name": name,
            "type": kind,
            "featureNodeHash": self._identifiers.feature_hash(),
            "required": False,
            "archived": False,
            "dynamic": False,
            **({"options": options} if labels else {}),
        }
