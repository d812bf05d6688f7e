"""``DataLookup``, deprecated as it is in encord-agents: what it finds is injected by ``dep_storage_item``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar
from uuid import UUID

from celery_agents.dependencies.by_hand import client_or_own
from celery_agents.dependencies.markers import Depends

if TYPE_CHECKING:
    import encord.project
    import encord.storage
    import encord.user_client
    from encord.dataset import Dataset
    from encord.orm.dataset import DataRow


class DataLookup:
    """Finds data rows and storage items by data hash, in some datasets.

    Deprecated: an agent that takes ``storage_item: StorageItem`` gets it from one call for the whole batch, and label
    rows know their ``backing_item_uuid``. Everything here warns so.
    """

    __instances__: ClassVar[dict[UUID, DataLookup]] = {}

    def __init__(
        self,
        dataset_hashes: list[str | UUID] | None = None,
        user_client: encord.user_client.EncordUserClient | None = None,
    ) -> None:
        _warn("DataLookup")
        self.user_client = client_or_own(user_client)
        self.datasets: dict[UUID, Dataset] = {}
        self.data_rows: dict[str, DataRow] = {}
        for dataset_hash in dataset_hashes or ():
            self._add(dataset_hash)

    @classmethod
    def sharable(
        cls,
        project: encord.project.Project,
        client: encord.user_client.EncordUserClient = None,  # type: ignore[assignment]
    ) -> DataLookup:
        """The lookup of all datasets of a project, made once for this process."""
        project_hash = UUID(str(project.project_hash))
        if project_hash not in cls.__instances__:
            hashes: list[str | UUID] = [dataset.dataset_hash for dataset in project.list_datasets()]
            cls.__instances__[project_hash] = cls(hashes, client)
        return cls.__instances__[project_hash]

    @property
    def backing_item_uuids(self) -> list[UUID]:
        """The UUIDs of the storage items of all data rows."""
        _warn("DataLookup.backing_item_uuids")
        return [row.backing_item_uuid for row in self.data_rows.values()]

    def get_data_row(self, data_hash: str | UUID, dataset_hash: str | UUID | None = None) -> DataRow:
        """The data row of a data unit.

        Args:
            data_hash: Of which data unit.
            dataset_hash: Where to look if it is in none of the datasets that were given before.

        Raises:
            ValueError: It is in none of them.
        """
        _warn("DataLookup.get_data_row")
        return self._row(data_hash, dataset_hash)

    def get_storage_item(
        self, data_hash: str | UUID, dataset_hash: str | UUID | None = None, sign_url: bool = False
    ) -> encord.storage.StorageItem:
        """The storage item of a data unit; arguments and errors are those of ``get_data_row``."""
        _warn("DataLookup.get_storage_item")
        row = self._row(data_hash, dataset_hash)
        return self.user_client.get_storage_item(row.backing_item_uuid, sign_url=sign_url)

    def get_storage_items(
        self,
        data_hashes: list[str | UUID],
        dataset_hash: str | UUID | None = None,
        sign_urls: bool = False,
    ) -> list[encord.storage.StorageItem]:
        """The storage items of data units, in one call; arguments and errors are those of ``get_data_row``."""
        _warn("DataLookup.get_storage_items")
        rows = [self._row(data_hash, dataset_hash) for data_hash in data_hashes]
        return self.user_client.get_storage_items([row.backing_item_uuid for row in rows], sign_url=sign_urls)

    def _row(self, data_hash: str | UUID, dataset_hash: str | UUID | None) -> DataRow:
        if str(data_hash) not in self.data_rows and dataset_hash is not None:
            self._add(dataset_hash)
        try:
            return self.data_rows[str(data_hash)]
        except KeyError:
            where = ", ".join(str(each) for each in self.datasets) or "none"
            raise ValueError(
                f"Data unit {data_hash} is in none of the datasets looked at ({where}): give its dataset_hash."
            ) from None

    def _add(self, dataset_hash: str | UUID) -> None:
        dataset = self.user_client.get_dataset(str(dataset_hash))
        self.datasets[UUID(str(dataset_hash))] = dataset
        self.data_rows.update({row.uid: row for row in dataset.data_rows})


def dep_data_lookup(lookup: Annotated[DataLookup, Depends(DataLookup.sharable)]) -> DataLookup:
    """The lookup of the project's datasets. Deprecated: take ``storage_item: StorageItem`` instead."""
    _warn("dep_data_lookup")
    return lookup


def _warn(name: str) -> None:
    warnings.warn(
        f"{name} is deprecated, as in encord-agents: use dep_storage_item, or annotate a parameter with StorageItem.",
        DeprecationWarning,
        stacklevel=3,
    )
