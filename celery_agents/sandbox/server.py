"""Runs the sandbox: a socket, a thread with uvicorn in it, and the facts that a client needs."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import socket
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from . import signatures
from .admin import Admin, report
from .app import DEFAULT_LIMITS, LONGEST_TARGET, Application, Limits
from .audit import Audit
from .calls import Gate
from .certificates import new_certificate
from .counters import Counters
from .faults import Fault, Faults
from .identifiers import Clock, utc_now
from .seed import seed_project
from .signed_urls import UrlSigner
from .state import Sandbox

_BACKLOG = 2048
# The application logs its own failures. What uvicorn would add is noise about connections that were dropped on
# purpose, printed even where nobody configured logging.
_silent = logging.getLogger(f"{__name__}.uvicorn")
_silent.setLevel(logging.CRITICAL + 1)
_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
"""From this machine, where the server listens on every address."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a sandbox is served. All have defaults that suit tests."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 takes any free port."""
    tasks: int = 20
    """Data units of the default project; 0 makes none."""
    seed: int = 0
    page_size: int = 100
    """Agent tasks in one page of a listing."""
    faults: tuple[Fault, ...] = ()
    private_key: str | None = None
    """OpenSSH text of the key to let in; made at the start if there is none."""
    admin_token: str | None = None
    """For callers of `/sandbox/` from other machines; made at the start if there is none."""
    limits: Limits = DEFAULT_LIMITS
    clock: Clock = utc_now
    tls: bool = False
    """Serve HTTPS, with a certificate made at the start."""
    connect_latency: float = 0.0
    """Seconds for which nothing is read from a new connection."""


class SandboxServer:
    """A running sandbox. Use as a context manager, or call `stop`."""

    def __init__(self, state: Sandbox | None = None, settings: Settings | None = None) -> None:
        """Bind the socket and build the state; nothing is served before `started`.

        With a `state`, the settings on tasks, page size and clock are its own. Raises OSError, and ValueError for
        a key of another kind.
        """
        settings = settings or Settings()
        self._settings = settings
        self.private_key = settings.private_key or signatures.new_private_key()
        """OpenSSH text of the key that the sandbox lets in."""
        public_key = signatures.public_key_of(self.private_key)
        self._socket = _listen(settings.host, settings.port)
        self._tls = new_certificate(self._reached_at) if settings.tls else None
        self.state = state or Sandbox(seed=settings.seed, page_size=settings.page_size, clock=settings.clock)
        self.state.add_key(public_key)
        if state is None and settings.tasks:
            seed_project(self.state, tasks=settings.tasks, seed=settings.seed)
        self.faults = Faults(settings.faults, seed=settings.seed)
        self.counters = Counters()
        self.admin_token = settings.admin_token or secrets.token_urlsafe(24)
        self._server = self._build()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @classmethod
    def start(cls, state: Sandbox | None = None, **settings: Any) -> SandboxServer:
        """Serve in a thread of this process, and return once connections are accepted.

        `settings` are the fields of `Settings`. A failure to start is raised here.
        """
        return cls(state, Settings(**settings)).started()

    def started(self) -> Self:
        """Serve in a thread, and return once connections are accepted. Raises what kept it from starting."""
        self._thread = threading.Thread(target=self._serve, name="celery-agents-sandbox", daemon=True)
        self._thread.start()
        self._server.ready.wait()
        if self._failure is not None:
            self.stop()
            raise self._failure
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        # Not the default of a dataclass: the private key must never be shown.
        return f"<SandboxServer {self.url}>"

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """What the SDK takes as `domain`."""
        host = self._reached_at
        return f"http{'s' if self._tls else ''}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def _reached_at(self) -> str:
        return _REACHED_AT.get(self._settings.host, self._settings.host)

    @property
    def certificate(self) -> str | None:
        """With TLS: the content of the file that `REQUESTS_CA_BUNDLE` must name for the SDK to trust this server."""
        return self._tls.pem if self._tls else None

    @property
    def project_hash(self) -> str:
        """The hash of the first project. Raises LookupError if there is none."""
        if not self.state.projects:
            raise LookupError("the sandbox has no project")
        return next(iter(self.state.projects))

    @property
    def audit(self) -> Audit:
        """Every write that was accepted or refused."""
        return self.state.audit

    @property
    def calls(self) -> Counter[str]:
        """Requests since the start or the last reset, by the call's stable name."""
        return self.counters.calls

    @property
    def connections(self) -> int:
        """TCP connections since the start or the last reset."""
        return self.counters.connections

    @property
    def open_connections(self) -> int:
        """TCP connections that are open now."""
        return len(self._server.server_state.connections)

    def report(self) -> dict[str, Any]:
        """What `GET /sandbox/report` answers."""
        return report(self.state, self.counters)

    def env(self, key_file: str | None = None) -> dict[str, str]:
        """The environment in which the SDK finds this sandbox; the key itself unless there is a file of it."""
        key = {"ENCORD_SSH_KEY_FILE": key_file} if key_file else {"ENCORD_SSH_KEY": self.private_key}
        project = {"CELERY_AGENTS_PROJECT": self.project_hash} if self.state.projects else {}
        return {"ENCORD_DOMAIN": self.url, **key, **project}

    def stop(self) -> None:
        """Close all connections and join the thread. Calling it again does nothing."""
        self._server.should_exit = True
        # Do not wait for idle keep-alive connections, nor for calls that a fault holds up.
        self._server.force_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._socket.close()

    def _build(self) -> _Server:
        limits = self._settings.limits
        gate = Gate(self.state, UrlSigner(self.state.clock, limits.url_life), limits.signature_age)
        admin = Admin(self.state, self.faults, self.counters, self.admin_token)
        config = uvicorn.Config(
            Application(gate, self.faults, self.counters, admin, limits),
            http=functools.partial(_Protocol, connect_latency=self._settings.connect_latency),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
        )
        config.load()
        config.ssl = self._tls.context() if self._tls else None
        return _Server(config)

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:  # noqa: BLE001 - whatever it is, the starting thread must hear of it
            self._failure = error
        finally:
            self._server.ready.set()


class _Server(uvicorn.Server):
    """uvicorn's server, saying when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A call that is held up is dropped, as by a server that dies; uvicorn would answer it with a 500.
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, counting connections and letting the application reach its own."""

    def __init__(
        self, config: uvicorn.Config, *args: Any, connect_latency: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(config, *args, **kwargs)
        self._connect_latency = connect_latency
        self._is_connecting = connect_latency > 0
        self._too_early = b""
        # uvicorn copies this mapping into the scope of every request of the connection.
        self.app_state = {**self.app_state, "connection": self}
        self.logger = _silent

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        application: Any = self.config.app
        application.counters.connections += 1
        if self._is_connecting:
            self.loop.call_later(self._connect_latency, self._be_connected)

    def data_received(self, data: bytes) -> None:
        if self._is_connecting:
            self.transport.pause_reading()
            self._too_early += data
        else:
            super().data_received(data)

    def _be_connected(self) -> None:
        self._is_connecting = False
        if self._too_early and not self.transport.is_closing():
            self.transport.resume_reading()
            super().data_received(self._too_early)

    def on_headers_complete(self) -> None:
        # httptools parses no longer URL. The application refuses it by its length, before it looks at it.
        self.scope["state"]["target_length"] = len(self.url)
        if len(self.url) > LONGEST_TARGET:
            self.url = b"/"
        super().on_headers_complete()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
