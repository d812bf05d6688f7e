"""`celery-agents sandbox`: serve the sandbox until interrupted, and say how to use it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from celery_agents.sandbox import Fault, SandboxServer

_EXTRA = frozenset({"av", "cryptography", "httptools", "numpy", "orjson", "PIL", "starlette", "uvicorn"})
"""The top-level modules that the `sandbox` extra brings."""


@click.command()
@click.option("--tasks", default=100, show_default=True, help="Data units in the project, of mixed kinds.")
@click.option("--port", default=0, help="Port to listen on; any free one if not given.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--allow-remote", is_flag=True, help="Permit a --host that other machines can reach.")
@click.option("--seed", default=0, show_default=True, help="The same seed makes the same project and faults.")
@click.option("--page-size", default=100, show_default=True, help="Agent tasks in one page of a listing.")
@click.option("--latency", default=0.0, show_default=True, help="Seconds that every call takes longer.")
@click.option(
    "--connect-latency", default=0.0, show_default=True, help="Seconds that connecting takes longer."
)
@click.option(
    "--tls",
    "ca_file",
    metavar="CERTIFICATE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Serve HTTPS with a new certificate, and write it to this file for clients to trust.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="CALL:OPTION=VALUE,…",
    help="Trouble to make; may be repeated. See below.",
)
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The private key to let in. Made (mode 0600) if the file does not exist.",
)
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the environment variables to this file, for `source` or `env_file:`.",
)
@click.option("--url-life", default=3600.0, show_default=True, help="Seconds that a signed URL stays good.")
@click.option("--json", "as_json", is_flag=True, help="Say readiness as one line of JSON.")
def sandbox(
    tasks: int,
    port: int,
    host: str,
    allow_remote: bool,
    seed: int,
    page_size: int,
    latency: float,
    connect_latency: float,
    ca_file: Path | None,
    faults: tuple[str, ...],
    key_file: Path | None,
    env_file: Path | None,
    url_life: float,
    as_json: bool,
) -> None:
    """Serve a local Encord: a project with two agent stages that the unmodified SDK works on.

    Nothing is kept: the project is made anew at each start, and gone at the end. Stop it with Ctrl-C.

    \b
    celery-agents sandbox --tasks 500 --port 8765 --key-file sandbox-key
    export ENCORD_DOMAIN=http://127.0.0.1:8765 ENCORD_SSH_KEY_FILE=sandbox-key

    A fault is the name of a call (`tasks.actions`, `labels.*`; every call if left out) and options.
    When: rate (a chance), nth (2+5: the second and fifth), times (at most). What: latency, jitter (seconds),
    status with retry_after and html, error (a legacy error name), drop (before or after it took effect),
    slow (seconds for the body), moved (tasks moved by somebody else just before).

    \b
    --fault tasks.actions:status=503,rate=0.05
    --fault labels.save:drop=after,nth=3
    --fault 'storage.*:status=429,retry_after=2,times=5'

    While it runs, GET /sandbox/report tells what happened, GET /sandbox/audit every write, and
    POST /sandbox/faults takes more faults.
    """  # noqa: D301 - click reads \b
    with _needing_the_extra():
        from celery_agents.sandbox import Fault, Limits, SandboxServer, Settings
        from celery_agents.sandbox.admin import is_loopback

    if not is_loopback(host) and not allow_remote:
        raise click.UsageError(
            f"{host} can be reached from other machines; add --allow-remote if that is meant."
        )
    stop = _stop_on_signals()
    settings = Settings(
        host=host,
        port=port,
        tasks=tasks,
        seed=seed,
        page_size=page_size,
        faults=tuple(_faults(faults, latency, Fault)),
        private_key=_read_key(key_file),
        limits=Limits(url_life=url_life),
        tls=ca_file is not None,
        connect_latency=connect_latency,
    )
    try:
        server = SandboxServer(settings=settings)
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {host}:{port}: {error.strerror or error}.") from error
    with server.started():
        trust = _write_certificate(server, ca_file)
        _announce(server, key_file, env_file, trust, as_json=as_json, remote=not is_loopback(host))
        stop.wait()


@contextmanager
def _needing_the_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise click.ClickException(
            f"The sandbox needs {error.name}, which is not installed: pip install 'celery-agents[sandbox]'"
        ) from error


def _stop_on_signals() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set; before they could end the process with a traceback."""
    stop = threading.Event()

    def set_it(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, set_it)
    return stop


def _faults(texts: tuple[str, ...], latency: float, fault: type[Fault]) -> Iterator[Fault]:
    if latency:
        yield fault(latency=latency)
    for text in texts:
        try:
            yield fault.parse(text)
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}", param_hint="--fault") from error


def _read_key(key_file: Path | None) -> str | None:
    """The key in the file, which is checked here so that the sentence can name the file; None without one."""
    from celery_agents.sandbox.signatures import new_private_key, public_key_of

    if key_file is None:
        return None
    try:
        if not key_file.exists():
            _write_private(key_file, new_private_key())
        key = key_file.read_text(encoding="ascii")
        public_key_of(key)
    except OSError as error:
        raise click.ClickException(f"Cannot use the key file {key_file}: {error.strerror}.") from error
    except ValueError as error:
        raise click.ClickException(
            f"{key_file} holds no unencrypted ed25519 key in OpenSSH format."
        ) from error
    return key


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)


def _write_certificate(server: SandboxServer, path: Path | None) -> dict[str, str]:
    """Write the certificate to a file, and return the environment in which clients trust it; nothing without TLS."""
    if path is None:
        return {}
    try:
        path.write_text(server.certificate or "", encoding="ascii")
    except OSError as error:
        raise click.ClickException(f"Cannot write the certificate to {path}: {error.strerror}.") from error
    return {"REQUESTS_CA_BUNDLE": str(path.resolve())}


def _announce(
    server: SandboxServer,
    key_file: Path | None,
    env_file: Path | None,
    trust: dict[str, str],
    *,
    as_json: bool,
    remote: bool,
) -> None:
    """Say what to export. The private key goes to a file if anywhere, never to the terminal."""
    env = (server.env(str(key_file.resolve())) if key_file else server.env()) | trust
    if env_file is not None:
        _write_private(env_file, "".join(f"{name}={shlex.quote(value)}\n" for name, value in env.items()))
    shown = {name: value for name, value in env.items() if name != "ENCORD_SSH_KEY"}
    if as_json:
        click.echo(json.dumps(_readiness(server, key_file, env_file, remote=remote)))
        return
    click.echo(f"The sandbox listens on {server.url}. Stop it with Ctrl-C. To use it:\n")
    for name, value in shown.items():
        click.echo(f"    export {name}={shlex.quote(value)}")
    if env_file is not None:
        click.echo(f"\nor:  set -a; source {shlex.quote(str(env_file))}; set +a")
    elif key_file is None:
        click.echo("\nThe key was made for this run and is written nowhere: pass --key-file to get at it.")
    click.echo(f"\nReport: {server.url}/sandbox/report")
    if remote:
        click.echo(f"From other machines with: Authorization: Bearer {server.admin_token}")


def _readiness(
    server: SandboxServer, key_file: Path | None, env_file: Path | None, *, remote: bool
) -> dict[str, Any]:
    ready: dict[str, Any] = {
        "url": server.url,
        "port": server.port,
        "project_hash": server.project_hash if server.state.projects else None,
        "key_file": str(key_file.resolve()) if key_file else None,
        "env_file": str(env_file.resolve()) if env_file else None,
        "pid": os.getpid(),
    }
    return {**ready, "admin_token": server.admin_token} if remote else ready
