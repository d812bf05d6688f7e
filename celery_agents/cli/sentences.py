"""Every error that a user can cause or meet, as one sentence with what to do; anything else is a bug and stays one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu.exceptions import OperationalError

from celery_agents.cli.terminal import ExitCode
from celery_agents.errors import AgentsError
from celery_agents.redaction import bounded, redact

#: Longest reason quoted from another library, in characters.
REASON_LIMIT = 300


class CommandError(click.ClickException):
    """Ends a command with a sentence on stderr and exit code 1."""

    exit_code = ExitCode.FAILED

    def __init__(self, detail: str, *, color: bool | None = None) -> None:
        super().__init__(redact(detail))
        self.color = color

    def show(self, file: Any = None) -> None:
        """Print the sentence behind a red ``Error:``."""
        mark = click.style("Error:", fg="red", bold=True)
        click.echo(f"{mark} {self.message}", file=file, err=True, color=self.color)


def as_click_exception(error: Exception, ctx: click.Context) -> Exception:
    """Return what click should end the command with: a sentence for what is known, *error* itself otherwise."""
    if isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort):
        return error
    detail = sentence(error, ctx.obj.app)
    return error if detail is None else CommandError(detail, color=False if ctx.obj.no_color else None)


def sentence(error: BaseException, app: Celery) -> str | None:
    """Return what *error* means to the user and what to do, or None for what is not known."""
    if isinstance(error, AgentsError | ImproperlyConfigured):
        return str(error)
    if isinstance(error, OperationalError):
        return broker_is_down(app, error)
    if _is_encords(error, "EncordException"):
        return encord_refuses(error)
    describe = _BY_PACKAGE.get(type(error).__module__.partition(".")[0])
    return describe(app, error) if describe else None


def broker_is_down(app: Celery, error: BaseException) -> str:
    """Say that the broker cannot be reached."""
    url = app.connection_for_write().as_uri()  # without the password
    return f"The broker {url} cannot be reached ({reason(error)}): start it, or set broker_url or CELERY_BROKER_URL."


def backend_is_down(app: Celery, error: BaseException) -> str:
    """Say that the result backend cannot be used."""
    return (
        f"The result backend {app.backend.as_uri()} cannot be used ({reason(error)}): "
        "start it, or set result_backend or CELERY_RESULT_BACKEND."
    )


#: Package whose exception it is -> what that means. Kombu wraps what its transports raise in its own
#: OperationalError, so a bare one of these comes from the result backend.
_BY_PACKAGE: dict[str, Callable[[Celery, BaseException], str]] = {
    "redis": backend_is_down,
    "valkey": backend_is_down,
    "sqlalchemy": backend_is_down,
    "amqp": broker_is_down,
}


def encord_refuses(error: BaseException) -> str:
    """Say what an exception of the SDK's means."""
    if _is_encords(error, "RequestException"):  # its text is that of a log line
        where = getattr(getattr(error, "context", None), "domain", None) or "its address"
        return f"Encord does not answer at {where}: check the network, and ENCORD_DOMAIN."
    return f"Encord cannot do that now: {reason(error)}."


def _is_encords(error: BaseException, name: str) -> bool:
    # Asked without importing encord, which takes a second: an error of its classes can only exist where it is loaded.
    exceptions = sys.modules.get("encord.exceptions")
    return exceptions is not None and isinstance(error, getattr(exceptions, name))


def reason(error: BaseException) -> str:
    """Return the text of *error* on one bounded line, without secrets; its class where it has no text."""
    text = " ".join(redact(str(error)).split()).rstrip(".")
    return bounded(text, REASON_LIMIT) or type(error).__name__
