"""Read a message that a broker has delivered as one of agent tasks, trusting nothing in it.

Celery trusts the shape of a message. A number for a body, an id that is a list or time limits that are text end the
worker; the broker then gives the message to the next worker, which ends as well. So whatever Celery would use is looked
at here first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery_agents.errors import SpecError
from celery_agents.messages import MOST_SPECS, Carry, as_specs
from celery_agents.settings import Settings

#: What kombu calls JSON. Nothing else is read: to unpickle a message is to run what its sender wants.
JSON = "application/json"
#: Longest message id, and longest text in any other header, in characters; Celery's own have some dozen to a thousand.
ID_LIMIT, HEADER_LIMIT = 255, 10_000

_NAMES = ("specs", "carry")  #: what a ``StageTask`` can be called with
_MISSHAPEN = "Its body is not [args, kwargs, options], as Celery sends it."


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it was delivered.

    Args:
        message: kombu's.
        body: What is decoded of it already: a message of Celery's old protocol 1, which has everything in its body.
    """

    message: Any
    body: Any = None

    @classmethod
    def of(cls, message: Any) -> Incoming:
        """Return a message of which it is not known whether anything of it is decoded."""
        # kombu.message.Message: what `decode` has made of it, which protocol 1 needs to know the task's name.
        return cls(message, None if "task" in (message.headers or {}) else message._decoded_cache)  # noqa: SLF001

    @property
    def id(self) -> str | None:
        """Its Celery id; None where it has none that can be one."""
        found = self._fields.get("id")
        return found if _is_id(found) else None

    @property
    def size(self) -> int:
        """How long its body is, in bytes."""
        return len(self.message.body or "")

    @property
    def _fields(self) -> Mapping[str, Any]:
        headers = self.message.headers or {}
        return {**self.body, **headers} if isinstance(self.body, dict) else headers

    def specs(self, settings: Settings) -> list[object]:
        """Return the specs that it carries, each still to be decoded.

        Raises:
            SpecError: Celery or the task could not take it as it is; the sentence says why.
        """
        self._check_fields()
        if self.message.content_type != JSON:
            raise SpecError(f"Its content type is {self.message.content_type!r:.100}; only {JSON} is read.")
        if self.size > settings.max_message_bytes:
            raise SpecError(
                f"It has {self.size:,} bytes; one of more than {settings.max_message_bytes:,} is not read (the setting "
                "agents_max_message_bytes). Send fewer specs in a message."
            )
        given = _arguments(self._payload())
        Carry.decode(given.get("carry"))
        specs = as_specs(given["specs"])
        if len(specs) > MOST_SPECS:
            raise SpecError(f"It carries {len(specs):,} specs; more than {MOST_SPECS:,} are not read.")
        return specs

    def canvas(self, settings: Settings) -> dict[str, Any]:
        """Return what waits for this message, a chord, a chain or errbacks, as Celery's request holds it.

        Nothing is returned of a message that is too long to be read, or that Celery could not read either.
        """
        if self.message.content_type != JSON or self.size > settings.max_message_bytes:
            return {}
        try:
            self._check_fields()
            payload = self._payload()
        except SpecError:
            return {}
        embedded = payload[-1] if isinstance(payload, list) and payload else None
        if not embedded or not _is_embedded(embedded):
            return {}
        headers = {name: self._fields.get(name) for name in ("id", "group", "group_index", "root_id")}
        return headers | {name: embedded.get(name) for name in ("errbacks", "chain", "chord")}

    def _check_fields(self) -> None:
        fields = self._fields
        for name, is_right in _FIELDS.items():
            if fields.get(name) is not None and not is_right(fields[name]):
                raise SpecError(f"Its header {name!r} is not what Celery sends.")
        if not _is_id(fields.get("id")):
            raise SpecError("It has no id.")

    def _payload(self) -> Any:
        if self.body is not None:
            return self.body
        try:
            return self.message.payload
        except Exception as error:  # noqa: BLE001  (kombu's decoders raise what they like)
            raise SpecError(f"Its body is not JSON that can be read ({type(error).__name__}).") from None


def _arguments(payload: Any) -> dict[str, Any]:
    """Return what the task is called with, by name."""
    if isinstance(payload, dict) and "args" in payload:  # protocol 1
        args, kwargs, embedded = payload["args"], payload.get("kwargs", {}), payload
    elif isinstance(payload, list) and len(payload) == 3:
        args, kwargs, embedded = payload
    else:
        raise SpecError(_MISSHAPEN)
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not _is_embedded(embedded):
        raise SpecError(_MISSHAPEN)
    if len(args) > len(_NAMES) or kwargs.keys() - _NAMES[len(args) :]:
        raise SpecError("Its task takes one argument, a task spec or a list of them.")
    given = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
    if "specs" not in given:
        raise SpecError("It carries no specs: its task takes one argument, a task spec or a list of them.")
    return given


def _is_embedded(embedded: Any) -> bool:
    """Whether Celery can walk through what comes with a message: callbacks, errbacks, a chain, a chord."""
    if embedded is None:
        return True
    if not isinstance(embedded, dict) or not isinstance(embedded.get("chord"), dict | None):
        return False
    signatures = [embedded.get(name) or [] for name in ("callbacks", "errbacks", "chain")]
    return all(isinstance(each, list) and all(isinstance(one, dict) for one in each) for each in signatures)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= ID_LIMIT


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= HEADER_LIMIT


def _is_integer(value: Any) -> bool:
    return isinstance(value, int)


def _is_time_limits(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(each is None or (isinstance(each, int | float) and each >= 0) for each in value)
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


#: Whether a header is what Celery sends, for those that Celery's worker uses. Each may be missing or None but the id.
_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("root_id", "parent_id", "group", "reply_to", "eta", "expires"), _is_text),
    **dict.fromkeys(("shadow", "origin", "argsrepr", "kwargsrepr"), _is_text),
    **dict.fromkeys(("retries", "group_index", "replaced_task_nesting", "ignore_result"), _is_integer),
    "id": _is_id,
    "timelimit": _is_time_limits,
    "stamped_headers": _is_names,
    "stamps": lambda value: isinstance(value, dict),
}
