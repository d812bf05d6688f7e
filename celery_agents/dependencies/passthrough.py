"""The ``dep_*`` functions that hand on what is injectable by type anyway, as encord-agents offers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_agents.dependencies.by_hand import client_or_own

# Only for type checkers: the planner reads an annotation that spells out a dotted name without importing it.
if TYPE_CHECKING:
    import encord.storage
    import encord.user_client


def dep_client(
    client: encord.user_client.EncordUserClient = None,  # type: ignore[assignment]
) -> encord.user_client.EncordUserClient:
    """The authenticated client; ``client: EncordUserClient`` without ``Depends`` is the same.

    In a runner it is the runner's. Called by hand without one, it is made from the environment, see
    ``get_user_client``.
    """
    return client_or_own(client)


def dep_storage_item(storage_item: encord.storage.StorageItem) -> encord.storage.StorageItem:
    """The agent task's storage item; ``item: StorageItem`` without ``Depends`` is the same."""
    return storage_item
