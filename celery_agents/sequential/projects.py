"""Which project a runner runs on: its own, or one for each call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import UUID

from celery_agents.declaring import project_uuid
from celery_agents.errors import DeclarationError

if TYPE_CHECKING:
    from encord.user_client import EncordUserClient

    from celery_agents.gateway.project import Gateway


class Projects:
    """The projects that one runner may run on.

    Args:
        own: The project that the runner was made for; None lets each call choose.
        user_client: An authenticated client; None opens one from the environment.
    """

    def __init__(self, own: UUID | None, user_client: EncordUserClient | None) -> None:
        self._own_hash = own
        self._user_client = user_client
        self._running = threading.local()  # a server may run several projects side by side

    @property
    def current(self) -> Gateway | None:
        """The project of the call that is under way in this thread, or else the runner's own."""
        return getattr(self._running, "gateway", None) or self._own

    @property
    def client(self) -> EncordUserClient:
        """The authenticated client that agents get. Raises SetupError where there is no key."""
        if self.current is not None:
            return self.current.client
        from celery_agents.gateway.client import bounded, open_client

        return bounded(self._user_client) if self._user_client else open_client()

    @cached_property
    def _own(self) -> Gateway | None:
        return self._gateway(self._own_hash) if self._own_hash else None

    def _gateway(self, project_hash: UUID) -> Gateway:
        from celery_agents.gateway.project import Gateway  # here, because it imports the SDK: 1.3 s and 80 MB

        return Gateway(project_hash, self._user_client)

    def open(self, project_hash: str | UUID | None) -> Gateway:
        """Return the project that a call asks for; it is fetched at first use.

        Raises:
            DeclarationError: None is asked for and the runner has none, or the runner is for another.
        """
        asked = None if project_hash is None else project_uuid(project_hash)
        if self._own is not None:
            if asked not in (None, self._own_hash):
                raise DeclarationError(
                    f"This runner is for project {self._own_hash} and cannot run {asked}; one that is made without a "
                    "project_hash takes it with each call."
                )
            return self._own
        if asked is None:
            raise DeclarationError(
                "No project: give project_hash to Runner(…), to this call, or as --project-hash on the command line."
            )
        return self._gateway(asked)

    @contextmanager
    def running(self, gateway: Gateway) -> Iterator[None]:
        """Let *gateway* be the current project of this thread meanwhile."""
        before = getattr(self._running, "gateway", None)
        self._running.gateway = gateway
        try:
            yield
        finally:
            self._running.gateway = before
