"""The checks that Encord makes before it stores a label row.

A label row holds objects frame by frame, and the answers to their attributes and to classifications in
dictionaries beside them. Each check raises the error that its counterpart at Encord answers with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import AnswerMissingError, CorruptedLabelError, FeatureUnknownError
from .ontologies import Feature, Ontology
from .spaces import labels_in
from .storage import DataUnit

_GEOMETRY = {
    "bounding_box": "boundingBox",
    "rotatable_bounding_box": "rotatableBoundingBox",
    "polygon": "polygon",
    "polyline": "polyline",
    "point": "point",
    "bitmask": "bitmask",
    "skeleton": "skeleton",
    "ellipse": "ellipse",
    "circle": "circle",
}
"""The key under which a frame's object holds its coordinates, by shape."""

_FRAME_BY_FRAME = frozenset({"video", "pdf"})
_WITHOUT_FRAMES = frozenset({"audio", "plain_text"})


def check_label_row(row: Mapping[str, Any], unit: DataUnit, ontology: Ontology, *, strictly: bool) -> None:
    """Refuse a label row that contradicts its data unit, its ontology or itself.

    `strictly` is the caller's `validate_before_saving`: boxes must then also lie within the picture.
    Raises `CorruptedLabelError`, `FeatureUnknownError` or `AnswerMissingError`.
    """
    answers = _mapping(row, "object_answers")
    for entry in objects_in(row, unit):
        feature = _object_feature(entry, ontology)
        _check_geometry(entry, feature, strictly=strictly)
        if entry.get("objectHash") not in answers:
            raise AnswerMissingError(f"object {entry.get('objectHash')} has no entry in object_answers")
    for object_hash, answer in answers.items():
        _check_object_answer(object_hash, answer, unit, ontology)
    for classification_hash, answer in _mapping(row, "classification_answers").items():
        _check_classification(classification_hash, answer, unit, ontology)


def objects_in(row: Mapping[str, Any], unit: DataUnit) -> Iterator[Mapping[str, Any]]:
    """Every frame's objects. Raises `CorruptedLabelError` for a frame, file or space that the unit has not."""
    known = {frame.hash for frame in unit.frames}
    for unit_hash, data_unit in _mapping(row, "data_units").items():
        if unit_hash not in known:
            raise CorruptedLabelError(f"the data unit {unit_hash} is no part of {unit.data_hash}")
        labels = data_unit.get("labels") or {}
        if unit.data_type in _FRAME_BY_FRAME:
            for frame, content in labels.items():
                _check_frame(frame, unit)
                yield from _objects(content)
        elif unit.data_type not in _WITHOUT_FRAMES:
            yield from _objects(labels)
    for labels in labels_in(row, unit):
        yield from _objects(labels)


def _mapping(row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = row.get(key)
    if not isinstance(value, Mapping):
        raise CorruptedLabelError(f"{key} is missing")
    return value


def _objects(frame: Any) -> Iterator[Mapping[str, Any]]:
    entries = frame.get("objects", []) if isinstance(frame, Mapping) else None
    if not isinstance(entries, list):
        raise CorruptedLabelError("a frame's labels must hold a list of objects")
    yield from entries


def _check_frame(frame: str, unit: DataUnit) -> None:
    if not str(frame).isdigit() or int(frame) >= unit.number_of_frames:
        raise CorruptedLabelError(f"frame {frame} is outside the {unit.number_of_frames} frames")


def _object_feature(entry: Mapping[str, Any], ontology: Ontology) -> Feature:
    feature = ontology.features.get(str(entry.get("featureHash")))
    if feature is None or feature.shape is None:
        raise FeatureUnknownError(f"the ontology has no object with feature hash {entry.get('featureHash')}")
    if entry.get("shape", feature.shape) != feature.shape:
        raise CorruptedLabelError(f"{feature.name!r} is a {feature.shape}, not a {entry.get('shape')}")
    return feature


def _check_geometry(entry: Mapping[str, Any], feature: Feature, *, strictly: bool) -> None:
    key = _GEOMETRY.get(str(feature.shape))
    if key is None:
        return
    geometry = entry.get(key)
    if not isinstance(geometry, (Mapping, str, list)) or not geometry:
        raise CorruptedLabelError(f"object {entry.get('objectHash')} has no {key}")
    if key == "boundingBox" and isinstance(geometry, Mapping):
        _check_box(geometry, strictly=strictly)


def _check_box(box: Mapping[str, Any], *, strictly: bool) -> None:
    sides = [box.get(side) for side in "xywh"]
    if not all(isinstance(side, (int, float)) for side in sides):
        raise CorruptedLabelError("a bounding box needs the numbers x, y, w and h")
    x, y, w, h = (float(side) for side in sides if side is not None)
    # A hair of tolerance, as parts of a pixel count do not add up to exactly 1.
    if strictly and (min(x, y, w, h) < 0 or x + w > 1.000001 or y + h > 1.000001):
        raise CorruptedLabelError("a bounding box reaches outside the picture")


def _check_object_answer(object_hash: str, answer: Any, unit: DataUnit, ontology: Ontology) -> None:
    if not isinstance(answer, Mapping) or answer.get("objectHash") != object_hash:
        raise CorruptedLabelError(f"object_answers holds something else than object {object_hash}")
    if unit.data_type in _WITHOUT_FRAMES:
        _object_feature(answer, ontology)
        _check_ranges(answer, unit)
    features = ontology.features.values()
    attributes = {hash_ for feature in features for hash_ in feature.attributes}
    _check_answers(answer, attributes, frozenset().union(*(feature.options for feature in features)))


def _check_classification(classification_hash: str, answer: Any, unit: DataUnit, ontology: Ontology) -> None:
    if not isinstance(answer, Mapping) or answer.get("classificationHash") != classification_hash:
        raise CorruptedLabelError(f"classification_answers holds something else than {classification_hash}")
    feature = ontology.features.get(str(answer.get("featureHash")))
    if feature is None or feature.shape is not None:
        raise FeatureUnknownError(f"the ontology has no classification {answer.get('featureHash')}")
    _check_ranges(answer, unit)
    _check_answers(answer, set(feature.attributes), feature.options)


def _check_ranges(answer: Mapping[str, Any], unit: DataUnit) -> None:
    for range_ in answer.get("range") or ():
        first, last = int(range_[0]), int(range_[-1])
        # Text is counted in characters, whose number the sandbox's metadata does not hold.
        end = last if unit.data_type == "plain_text" else unit.number_of_frames
        if first < 0 or last < first or (last > end if unit.data_type in _WITHOUT_FRAMES else last >= end):
            raise CorruptedLabelError(f"range {range_} is outside the {unit.number_of_frames} frames")


def _check_answers(answer: Mapping[str, Any], attributes: set[str], options: frozenset[str]) -> None:
    for entry in answer.get("classifications") or ():
        if entry.get("featureHash") not in attributes:
            raise FeatureUnknownError(f"the ontology has no attribute {entry.get('featureHash')}")
        chosen = entry.get("answers")  # a list of options, or text
        for option in chosen if isinstance(chosen, list) else ():
            if option.get("featureHash") not in options:
                raise FeatureUnknownError(f"the ontology has no option {option.get('featureHash')}")
