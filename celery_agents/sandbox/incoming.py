"""A request as the routes see it: who asks for what, with typed access to query and body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .errors import MalformedError
from .state import Sandbox
from .wire import Urls


class Fields:
    """Typed reading of a JSON object; each reader raises `MalformedError` where the type is not as asked."""

    def __init__(self, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise MalformedError("the body must be a JSON object")
        self.values: Mapping[str, Any] = values

    def text(self, name: str) -> str:
        """A string that must be there."""
        value = self.values.get(name)
        if not isinstance(value, str):
            raise MalformedError(f"{name} must be a string")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string, or None where it is null or absent."""
        return None if self.values.get(name) is None else self.text(name)

    def texts(self, name: str) -> list[str]:
        """A list of strings that must be there."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise MalformedError(f"{name} must be a list of strings")
        return value

    def optional_texts(self, name: str) -> list[str] | None:
        """A list of strings, or None where it is null or absent."""
        return None if self.values.get(name) is None else self.texts(name)

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean, or the default where it is null or absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise MalformedError(f"{name} must be true or false")
        return default if value is None else value

    def objects(self, name: str) -> list[Mapping[str, Any]]:
        """A list of JSON objects that must be there."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
            raise MalformedError(f"{name} must be a list of objects")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        """A JSON object that must be there."""
        value = self.values.get(name)
        if not isinstance(value, Mapping):
            raise MalformedError(f"{name} must be an object")
        return value

    def optional_time(self, name: str) -> datetime | None:
        """An instant in ISO 8601, taken as UTC where it names no zone; None where it is null or absent."""
        value = self.optional_text(name)
        try:
            at = None if value is None else datetime.fromisoformat(value)
        except ValueError as error:
            raise MalformedError(f"{name} must be an instant in ISO 8601") from error
        return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


@dataclass(frozen=True)
class Incoming:
    """One authenticated v2 request, its path matched to a route."""

    state: Sandbox
    who: str
    urls: Urls
    parameters: Mapping[str, str]
    """The named parts of the path."""
    query: Sequence[tuple[str, str]] = ()
    body: Any = None

    @property
    def fields(self) -> Fields:
        """The body as an object. Raises `MalformedError` if it is not one."""
        return Fields(self.body)

    def asked(self, name: str) -> str | None:
        """The query value of this name, if any."""
        return next((value for key, value in self.query if key == name), None)

    def all_asked(self, name: str) -> list[str]:
        """Every query value of this name."""
        return [value for key, value in self.query if key == name]

    def asked_flag(self, name: str) -> bool:
        """Whether the query says `True`."""
        return (self.asked(name) or "").lower() == "true"


@dataclass(frozen=True)
class LegacyIncoming:
    """One authenticated request of the legacy API."""

    state: Sandbox
    who: str
    urls: Urls
    resource_type: str
    resource_id: str
    uid: Any = None
    payload: Any = field(default=None)

    @property
    def fields(self) -> Fields:
        """The payload as an object. Raises `MalformedError` if it is not one."""
        return Fields(self.payload)

    @property
    def hashes(self) -> list[str]:
        """The uid as a list of strings; a single one stands for a list of one."""
        uids = self.uid if isinstance(self.uid, list) else [self.uid]
        return Fields({"uid": uids}).texts("uid")
