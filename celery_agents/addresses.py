"""Find out about a URL that cannot be read before somebody quotes its password in an error.

A password is written into a URL with its special characters as %XX. Where one is not, what follows it is taken for a
port or a path, and Celery, kombu and Python say so, in a traceback, with the password in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from celery_agents.errors import SetupError

#: Celery's settings that hold a URL with a password.
SETTINGS = ("broker_url", "broker_read_url", "broker_write_url", "result_backend")
#: Of these it is known how they are read; others have URLs of their own making, such as several hosts in one.
SCHEMES = frozenset({"amqp", "amqps", "pyamqp", "redis", "rediss", "rpc", "sentinel", "valkey", "valkeys"})


def check(conf: Mapping[str, Any]) -> None:
    """Look at the URLs in an app's configuration.

    Raises:
        SetupError: One cannot be read; the sentence has nothing of it.
    """
    for name in SETTINGS:
        for url in _urls(conf.get(name)):
            if _is_unreadable(url):
                raise SetupError(
                    f"The URL in the setting {name} cannot be read: special characters of its password must be "
                    "written as %XX (/ as %2F, @ as %40, : as %3A, # as %23, ? as %3F)."
                )


def _urls(value: Any) -> Iterator[str]:
    """Yield the URLs of a setting; several to fail over to are a list, or one text with semicolons."""
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, str):
            yield from text.split(";")


def _is_unreadable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            return False
        _ = parts.port
    except ValueError:
        return True
    # An @ behind the host means that what was taken for the port was the beginning of the password.
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    return "@" in rest and "@" not in parts.netloc and ":" in parts.netloc
