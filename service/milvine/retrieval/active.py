"""Which release answers: the active one of a catalog, resolved once a request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from milvine.artifacts import Artifacts
from milvine.domain.catalog import Catalog
from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.release import Release
from milvine.models.serving import ServingModel, load_serving_model
from milvine.records import Records
from milvine.vectors.layout import Layout, layout


@dataclass(frozen=True, slots=True, eq=False)
class Active:
    """A release with all that a request needs of it; a request keeps it to its end."""

    catalog: Catalog
    release: Release
    served: ServingModel
    event_types: tuple[str, ...]
    """The event types that the model learned from; empty for all."""

    def layout(self, side: Side) -> Layout:
        """The collections of a side."""
        return layout(self.release, side, self.served.dimension, self.served.taste_dimension)


@dataclass(frozen=True, slots=True)
class _Entry:
    active: Active
    fresh_until: float


class ActiveReleases:
    """The active releases by catalog, looked up again after `refresh_s`.

    An activation by this process shows at once, by `forget`; another process's after `refresh_s`.
    """

    def __init__(self, records: Records, artifacts: Artifacts, *, refresh_s: float) -> None:
        self._records = records
        self._artifacts = artifacts
        self._refresh_s = refresh_s
        self._entries: dict[str, _Entry] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, catalog_id: str) -> Active:
        """The active release of a catalog.

        Raises:
            NotFound: There is no such catalog.
            FailedPrecondition: It has no active release.
        """
        if active := self._fresh(catalog_id):
            return active
        async with self._locks[catalog_id]:
            if active := self._fresh(catalog_id):  # another request looked meanwhile
                return active
            entry = self._entries.get(catalog_id)
            known = entry.active if entry else None
            try:
                active = await asyncio.to_thread(self._look_up, catalog_id, known)
            except Exception:
                self.forget(catalog_id)
                raise
            self._entries[catalog_id] = _Entry(active, _now() + self._refresh_s)
            return active

    def forget(self, catalog_id: str) -> None:
        """Look the catalog up anew at the next request."""
        self._entries.pop(catalog_id, None)
        if not self._locks[catalog_id].locked():
            self._locks.pop(catalog_id)

    def _fresh(self, catalog_id: str) -> Active | None:
        entry = self._entries.get(catalog_id)
        return entry.active if entry and entry.fresh_until > _now() else None

    def _look_up(self, catalog_id: str, known: Active | None) -> Active:
        catalog = self._records.catalogs.get(catalog_id)
        if catalog.active_release_id is None:
            raise FailedPrecondition(
                f"catalog {catalog_id!r} has no active release; train a model and publish it",
                Reason.NO_ACTIVE_RELEASE,
                {"catalog_id": catalog_id},
            )
        if known and known.release.id == catalog.active_release_id:
            return Active(catalog, known.release, known.served, known.event_types)
        release = self._records.releases.get(catalog.active_release_id)
        model = self._records.models.get(release.model_id)
        served = load_serving_model(self._artifacts, model)
        return Active(catalog, release, served, model.event_types)


def _now() -> float:
    return asyncio.get_running_loop().time()
