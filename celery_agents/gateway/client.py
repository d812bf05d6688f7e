"""Open an authenticated Encord client from the environment, with the SDK's hidden waiting switched off.

The environment variables are those of the SDK and of encord-agents: ``ENCORD_SSH_KEY`` (the key's content) or
``ENCORD_SSH_KEY_FILE`` (its path), and ``ENCORD_DOMAIN`` for another region or a sandbox.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path

from encord.configs import UserConfig
from encord.http.constants import RequestsSettings
from encord.http.querier import Querier
from encord.user_client import EncordUserClient

from celery_agents._version import __version__
from celery_agents.errors import SetupError
from celery_agents.gateway.connections import our_retries
from celery_agents.gateway.permits import Permit

#: Seconds that one call may hold a worker, unless it is told otherwise. The SDK's own limits are 180 s to connect and
#: as much for each wait for a piece of the answer.
CALL_TIMEOUT = 30.0
#: Seconds to connect, at most, and what part of a call's time that may take. It is tried twice.
LONGEST_CONNECT, CONNECT_SHARE = 5.0, 1 / 6
#: Seconds between the two.
CONNECT_PAUSE = 0.2

_HOW_TO_GET_A_KEY = "see https://docs.encord.com/platform-documentation/General/general-access-keys"


def requests_settings(
    call_timeout: float = CALL_TIMEOUT, *, keep_connections: bool = True, permit: Permit | None = None
) -> RequestsSettings:
    """Return settings under which no call takes longer than *call_timeout* seconds.

    The SDK retries inside a call: up to 9 s for a 500, three times ``Retry-After`` for a 429. Waiting belongs to
    Celery's retry, which holds no worker process, so the SDK is told not to. Only connecting is tried once more: a
    refused connection has had no effect. A fresh object, because the SDK's default one is shared by all clients.
    """
    connect = min(LONGEST_CONNECT, call_timeout * CONNECT_SHARE)
    answer = call_timeout - 2 * connect - CONNECT_PAUSE
    return RequestsSettings(
        max_retries=0,
        backoff_factor=CONNECT_PAUSE,
        connection_retries=our_retries(1, call_timeout, keep=keep_connections, permit=permit),
        connect_timeout=connect,  # type: ignore[arg-type]  # requests takes fractions
        read_timeout=answer,  # type: ignore[arg-type]
        write_timeout=answer,  # type: ignore[arg-type]
    )


def bounded(
    given: EncordUserClient,
    call_timeout: float = CALL_TIMEOUT,
    *,
    keep_connections: bool = True,
    permit: Permit | None = None,
) -> EncordUserClient:
    """Return a client with the key, domain and tracing of *given* that waits in no call either.

    Besides holding a worker, a retry inside the SDK hides what happened: one that repeats a move whose answer was lost
    is told that the agent task has left the stage, as if somebody else had moved it.
    """
    ours = requests_settings(call_timeout, keep_connections=keep_connections, permit=permit)
    config = copy.copy(given.user_config.config)
    config.requests_settings = replace(
        ours,
        connect_timeout=min(config.connect_timeout, ours.connect_timeout),
        read_timeout=min(config.read_timeout, ours.read_timeout),
        write_timeout=min(config.write_timeout, ours.write_timeout),
        trace_id_provider=config.requests_settings.trace_id_provider,
    )
    # What ``encord.configs.BaseConfig`` takes from its settings when it is made.
    for name in ("connect_timeout", "read_timeout", "write_timeout"):
        setattr(config, name, getattr(config.requests_settings, name))
    user_config = UserConfig(config)
    return EncordUserClient(user_config, Querier(user_config))


def open_client(
    call_timeout: float = CALL_TIMEOUT, *, keep_connections: bool = True, permit: Permit | None = None
) -> EncordUserClient:
    """Return a client authenticated with the key that the environment names. No network is used.

    Raises:
        SetupError: There is no key, or it cannot be read.
    """
    key = _private_key()
    domain = os.environ.get("ENCORD_DOMAIN")
    options = {"domain": domain} if domain else {}
    try:
        return EncordUserClient.create_with_ssh_private_key(
            key,
            requests_settings=requests_settings(
                call_timeout, keep_connections=keep_connections, permit=permit
            ),
            user_agent_suffix=f"celery-agents/{__version__}",
            **options,
        )
    except Exception:  # noqa: BLE001  (the SDK and cryptography raise a dozen kinds)
        # Not chained: the cause's text may quote the key.
        raise SetupError(
            f"The Encord private key in {key_variable()} cannot be read; it must be an ed25519 key in OpenSSH format "
            f"without a passphrase ({_HOW_TO_GET_A_KEY})."
        ) from None


def key_variable() -> str:
    """Return the variable of the environment from which the key is read."""
    return "ENCORD_SSH_KEY" if os.environ.get("ENCORD_SSH_KEY") else "ENCORD_SSH_KEY_FILE"


def _private_key() -> str:
    content = os.environ.get("ENCORD_SSH_KEY")
    if content:
        return content
    file = os.environ.get("ENCORD_SSH_KEY_FILE")
    if not file:
        raise SetupError(
            "No Encord key: set ENCORD_SSH_KEY_FILE to the path of your private key, or ENCORD_SSH_KEY to its content "
            f"({_HOW_TO_GET_A_KEY})."
        )
    try:
        return Path(file).expanduser().read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise SetupError(f"ENCORD_SSH_KEY_FILE is {file}, which cannot be read: {reason}.") from None
