"""The app's settings for agents, ``agents_…`` in Celery's configuration: names, defaults and bounds in one place."""

from __future__ import annotations

import difflib
import re
from typing import Any, Self
from urllib.parse import urlsplit

from celery import Celery
from celery.utils.time import rate
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from celery_agents.errors import SetupError

#: What each setting's name begins with in Celery's configuration.
PREFIX = "agents_"

NO_LEDGER_TO_LIMIT = (
    "agents_rate_limit holds for all workers together, which they agree on in the ledger, and the app has none: set "
    "agents_ledger_url to a Redis or Valkey, or leave agents_rate_limit out."
)

#: Schemes of Celery's that name a Redis, and how the ledger's client spells them.
_REDIS_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "redis+socket": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}


class Settings(BaseModel):
    """What an app has set for its agents, checked. Times are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Redis of the ledger; None: without a ledger. Where it is not set: the broker's, or else the result backend's.
    ledger_url: str | None = None
    #: Whether workers on Redis renew the visibility of what they hold.
    visibility_renewal: bool = True
    #: Worker processes that one agent task may kill before it is FAILED as poison.
    max_crashes: int = Field(3, ge=1)
    #: Longest time that one call to Encord may hold a worker.
    call_timeout: float = Field(30.0, ge=1)
    #: Whether calls to Encord use the connection of an earlier call.
    keep_connections: bool = True
    #: Memory of a process for media that are fetched ahead of their agent tasks; 0: none are.
    media_memory: int = Field(256 * 1024 * 1024, ge=0)
    #: Calls to Encord a second, of all processes that have a project together; None: as they come.
    rate_limit: float | None = None
    #: Longest task spec that is read; real ones have about 400 bytes.
    max_spec_bytes: int = Field(64 * 1024, ge=1024)
    #: Longest message, all its specs together, that is read.
    max_message_bytes: int = Field(16 * 1024 * 1024, ge=1024)
    #: How long outcomes can be looked up, and how many at most.
    outcomes_kept: float = Field(24 * 3600.0, gt=0)
    max_outcomes: int = Field(100_000, ge=1)
    #: How long failures can be looked up and replayed, and how many at most.
    failures_kept: float = Field(14 * 24 * 3600.0, gt=0)
    max_failures: int = Field(10_000, ge=1)
    #: How long a worker may be idle while its queue is not empty before it reconnects; 0: for ever.
    stuck_after: float = Field(30.0, ge=0)

    @classmethod
    def of(cls, app: Celery) -> Self:
        """Read the settings of *app*.

        Raises:
            SetupError: A setting does not exist, or its value cannot be used.
        """
        _refuse_unknown(app, cls.model_fields)
        unset = object()
        found = {name: app.conf.get(PREFIX + name, unset) for name in cls.model_fields}
        given = {name: value for name, value in found.items() if value is not unset}
        given["ledger_url"] = (given["ledger_url"] or None) if "ledger_url" in given else _redis_of(app)
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            raise SetupError(_complaint(error)) from None
        if settings.rate_limit is not None and settings.ledger_url is None:
            raise SetupError(NO_LEDGER_TO_LIMIT)
        return settings

    @field_validator("rate_limit", mode="before")
    @classmethod
    def _calls_a_second(cls, given: object) -> float | None:
        """Read a rate as Celery spells those of tasks. Less than one a second would let no batch get to its end."""
        if given is None:
            return None
        try:
            calls = float(rate(given))
        except (KeyError, TypeError, ValueError):
            calls = 0.0
        if not 1 <= calls < float("inf"):
            raise ValueError("give calls a second, one or more: 20, '20/s' or '1200/m'")
        return calls


def _refuse_unknown(app: Celery, known: Any) -> None:
    # app.conf.agents_… may be set beside what was read with config_from_object(namespace="CELERY").
    names = [spelt for name in known for spelt in (PREFIX + name, _spelt(app, PREFIX + name))]
    for name in app.conf:
        if name.startswith((PREFIX, _spelt(app, PREFIX))) and name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            settings = ", ".join(_spelt(app, PREFIX + each) for each in known)
            raise SetupError(f"There is no setting {name}. {hint}The settings for agents are: {settings}.")


def _spelt(app: Celery, name: str) -> str:
    """Return how a setting is spelt in the app's configuration: with its namespace, and in the namespace's case."""
    if not app.namespace:
        return name
    spelt = f"{app.namespace.rstrip('_')}_{name}"
    return spelt.upper() if app.namespace.isupper() else spelt


def _complaint(error: ValidationError) -> str:
    # Without the value: a URL may have a password.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"The setting {PREFIX}{first['loc'][0]} cannot be used: {first['msg']}."


def _redis_of(app: Celery) -> str | None:
    """Return the Redis that the app has anyway: its broker, or else its result backend."""
    for url in (app.conf.broker_write_url, app.conf.broker_url, app.conf.result_backend):
        # Several brokers to fail over to are one text with semicolons, or a list; the ledger keeps to the first.
        first = url[0] if isinstance(url, list | tuple) and url else url
        if isinstance(first, str) and (ours := _as_client_spells_it(first.split(";")[0])):
            return ours
    return None


def _as_client_spells_it(url: str) -> str | None:
    scheme = urlsplit(url).scheme
    if scheme not in _REDIS_SCHEMES:
        return None
    ours = url.replace(scheme, _REDIS_SCHEMES[scheme], 1)
    # The names of Python's ssl module, which Celery also takes.
    ours = re.sub(r"(ssl_cert_reqs=)CERT_(\w+)", lambda match: match[1] + match[2].lower(), ours)
    return ours.replace("virtual_host=", "db=") if scheme == "redis+socket" else ours
