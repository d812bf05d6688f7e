"""HTTP within bounds that requests does not have: one deadline for everything that is read, and no way inside.

A signed URL is Encord's, and may lead anywhere. Where the server behind it redirects, it must not be to this machine or
to the address where clouds tell their machines secrets: such a connection is closed before anything is asked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from celery_agents.deadlines import BoundedResponse, until
from celery_agents.sessions import Sessions


class InsideError(Exception):
    """Raised where a request leads to this machine or to its link, and may not."""


_may_be_inside: ContextVar[bool] = ContextVar("celery_agents_may_be_inside")


@contextmanager
def terms(deadline: float, *, may_be_inside: bool) -> Iterator[None]:
    """Set what holds for the requests made, and the answers read, in the ``with`` block.

    Args:
        deadline: Until when answers may be read, on the monotonic clock.
        may_be_inside: Whether requests may go to this machine or its link.
    """
    token = _may_be_inside.set(may_be_inside)
    try:
        with until(deadline):
            yield
    finally:
        _may_be_inside.reset(token)


@contextmanager
def bounded_session() -> Iterator[requests.Session]:
    """Lend a session, with the connections of who had it before. Its requests must be made within ``terms``."""
    session, _ = _sessions.take()
    try:
        yield session
    except BaseException:
        session.close()
        raise
    _sessions.give_back(session)


def _new_session() -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    # What a ~/.netrc has for the host would be a second signature beside the URL's own, which object stores refuse.
    session.auth = _as_it_is
    return session


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _Bounded:
    """What both kinds of connection have."""

    response_class = BoundedResponse  # http.client.HTTPConnection.response_class
    sock: Any
    proxy: Any

    def connect(self) -> None:
        """Connect, and turn back where it led inside and may not."""
        super().connect()  # type: ignore[misc]
        self._refuse_inside()

    def putrequest(self, *args: Any, **options: Any) -> None:
        """Begin a request, for which a connection that was kept may lead where this one may not."""
        if self.sock is not None:
            self._refuse_inside()
        super().putrequest(*args, **options)  # type: ignore[misc]

    def _refuse_inside(self) -> None:
        # Through a proxy only the proxy knows where it leads.
        if not _may_be_inside.get() and self.proxy is None and is_inside(self.sock.getpeername()[0]):
            self.sock.close()
            raise InsideError("an address of this machine or its link")


class _Connection(_Bounded, HTTPConnection):  # type: ignore[misc]  # as above
    pass


class _TLSConnection(_Bounded, HTTPSConnection):  # type: ignore[misc]  # as above
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    """Makes connections of ours, directly and through proxies."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager


_sessions = Sessions(_new_session)


def is_inside(address: str) -> bool:
    """Whether an IP address is this machine's own, or of its link only."""
    found = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_link_local or found.is_unspecified
