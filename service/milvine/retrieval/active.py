"""Which release answers: the active one of a catalog, resolved once a request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from milvine.artifacts import Artifacts
from milvine.domain.catalog import Catalog, Field
from milvine.domain.entity import Side
from milvine.domain.errors import DeadlineExceeded, FailedPrecondition, Reason, Unavailable
from milvine.domain.release import Release
from milvine.models.serving import ServingModel, load_serving_model
from milvine.records import Records
from milvine.retrieval.plan import Scope
from milvine.vectors.layout import Layout, layout


@dataclass(frozen=True, slots=True, eq=False)
class Active:
    """A release with all that a request needs of it; a request keeps it to its end."""

    catalog: Catalog
    release: Release
    served: ServingModel
    event_types: tuple[str, ...]
    """The event types that the model learned from; empty for all."""

    def scope(self, side: Side) -> Scope:
        """What a selection for a side can name."""
        declared = self.release.fields(side)
        later = {field.name for field in self._declared(side)} - {f.name for f in declared}
        return Scope(f"{self.release.id}/{side}", declared, frozenset(later))

    def _declared(self, side: Side) -> tuple[Field, ...]:
        return self.catalog.item_fields if side is Side.ITEM else self.catalog.user_fields

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
    While the records do not answer, the release that was active last goes on serving.
    """

    def __init__(self, records: Records, artifacts: Artifacts, *, refresh_s: float) -> None:
        self._records = records
        self._artifacts = artifacts
        self._refresh_s = refresh_s
        self._entries: dict[str, _Entry] = {}
        self._looks: dict[str, asyncio.Task[Active]] = {}

    async def get(self, catalog_id: str) -> Active:
        """The active release of a catalog.

        Raises:
            NotFound: There is no such catalog.
            FailedPrecondition: It has no active release.
            Unavailable: The records do not answer, and it has not been asked for before.
        """
        entry = self._entries.get(catalog_id)
        if entry and entry.fresh_until > _now():
            return entry.active
        if catalog_id not in self._looks:
            look = asyncio.create_task(self._look(catalog_id, entry.active if entry else None))
            self._looks[catalog_id] = look
            look.add_done_callback(lambda done: self._end(catalog_id, done))
        return await asyncio.shield(self._looks[catalog_id])  # others wait for it, too

    def forget(self, catalog_id: str) -> None:
        """Look the catalog up anew at the next request, whatever a look under way will see."""
        self._entries.pop(catalog_id, None)
        self._looks.pop(catalog_id, None)

    def _end(self, catalog_id: str, look: asyncio.Task[Active]) -> None:
        has_failed = look.cancelled() or look.exception() is not None
        if self._looks.get(catalog_id) is not look:
            return  # what it saw may be from before an activation
        del self._looks[catalog_id]
        if has_failed:
            self._entries.pop(catalog_id, None)
        else:
            self._entries[catalog_id] = _Entry(look.result(), _now() + self._refresh_s)

    async def _look(self, catalog_id: str, known: Active | None) -> Active:
        try:
            catalog, release_id = await asyncio.to_thread(self._read, catalog_id)
            if known and known.release.id == release_id:
                return replace(known, catalog=catalog)
            return await self._artifacts.loaders.run(self._load, catalog, release_id)
        except (Unavailable, DeadlineExceeded):
            if known is None:
                raise
            return known

    def _read(self, catalog_id: str) -> tuple[Catalog, str]:
        catalog = self._records.catalogs.get(catalog_id)
        if catalog.active_release_id is None:
            raise FailedPrecondition(
                f"catalog {catalog_id!r} has no active release; train a model and publish it",
                Reason.NO_ACTIVE_RELEASE,
                {"catalog_id": catalog_id},
            )
        return catalog, catalog.active_release_id

    def _load(self, catalog: Catalog, release_id: str) -> Active:
        release = self._records.releases.get(release_id)
        model = self._records.models.get(release.model_id)
        served = load_serving_model(self._artifacts, model)
        return Active(catalog, release, served, model.event_types)


def _now() -> float:
    return asyncio.get_running_loop().time()
