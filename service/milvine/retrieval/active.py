"""Which release answers: the active one of a catalog, or another that a request names."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from milvine.artifacts import Artifacts
from milvine.domain.catalog import Catalog
from milvine.domain.entity import Side
from milvine.domain.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    Reason,
    Unavailable,
)
from milvine.domain.release import Release, ReleaseState
from milvine.models.serving import ServingModel, load_serving_model
from milvine.records import Records
from milvine.retrieval.mapped import MappedItems
from milvine.retrieval.plan import Scope
from milvine.text import same_encoder
from milvine.vectors.layout import Layout, layout

MOST_OTHERS = 4
"""How many releases that are not active stay loaded; their item vectors are in memory."""

_Key: TypeAlias = tuple[str, str]
"""The ids of a catalog and of a release, the latter empty for the active one."""


@dataclass(frozen=True, eq=False)
class Active:
    """A release that answers, with all that a request needs of it; a request keeps it to its end.

    Mostly the active one of its catalog, else one that a request named.
    """

    catalog: Catalog
    release: Release
    served: ServingModel
    event_types: tuple[str, ...]
    """The event types that the model learned from; empty for all."""
    revision: int
    """Up to which changes of items and users are in the release's collections, at least."""

    def with_news(self, catalog: Catalog, served: ServingModel, revision: int) -> Active:
        """The same release as the stores know it now."""
        if (catalog, revision) == (self.catalog, self.revision) and served is self.served:
            return self
        return replace(self, catalog=catalog, served=served, revision=revision)

    def scope(self, side: Side) -> Scope:
        """What a selection for a side can name."""
        return self._scopes[side]

    def layout(self, side: Side) -> Layout:
        """The collections of a side."""
        return self._layouts[side]

    @cached_property
    def _scopes(self) -> Mapping[Side, Scope]:
        return {side: self._scope(side) for side in Side}

    def _scope(self, side: Side) -> Scope:
        declared = self.release.fields(side)
        later = {f.name for f in side.fields(self.catalog)} - {f.name for f in declared}
        return Scope(f"{self.release.id}/{side}", declared, frozenset(later))

    @cached_property
    def _layouts(self) -> Mapping[Side, Layout]:
        dimensions = (self.served.dimension, self.served.taste_dimension)
        return {side: layout(self.release, side, *dimensions) for side in Side}


@dataclass(frozen=True, slots=True)
class _Entry:
    active: Active
    fresh_until: float = 0.0

    @property
    def is_fresh(self) -> bool:
        return self.fresh_until > _now()


class ActiveReleases:
    """The releases that answer, looked up again after `refresh_s`.

    An activation by this process shows at once, by `forget`; another process's, and the deletion
    of a release, after `refresh_s`. While the records do not answer, what was known goes on.
    """

    def __init__(
        self,
        records: Records,
        artifacts: Artifacts,
        *,
        refresh_s: float,
        mapped: MappedItems | None = None,
    ) -> None:
        """Take the stores; without `mapped`, releases have only what their models learned."""
        self._records = records
        self._artifacts = artifacts
        self._mapped = mapped
        self._refresh_s = refresh_s
        self._active: dict[str, _Entry] = {}
        self._others: OrderedDict[_Key, _Entry] = OrderedDict()
        """The longest unused first."""
        self._looks: dict[_Key, asyncio.Task[Active]] = {}

    async def get(self, catalog_id: str, release_id: str = "") -> Active:
        """A release of a catalog: the active one, or the one that is named.

        Raises:
            NotFound: There is no such catalog, or it has no such release.
            FailedPrecondition: It has no active release, or the one that is named is not READY.
            Unavailable: The records do not answer, and it has not been asked for before.
        """
        entry = self._entry(catalog_id, release_id)
        if entry and entry.is_fresh:
            return entry.active
        key = (catalog_id, release_id)
        if key not in self._looks:
            look = asyncio.create_task(self._look(key, entry.active if entry else None))
            self._looks[key] = look
            look.add_done_callback(lambda done: self._end(key, done))
        return await asyncio.shield(self._looks[key])  # others wait for it, too

    def forget(self, catalog_id: str) -> None:
        """Look the catalog up anew at the next request, whatever looks under way will see."""
        for key in [key for key in self._looks if key[0] == catalog_id]:
            del self._looks[key]
        for key in [key for key in self._others if key[0] == catalog_id]:
            self._others[key] = _Entry(self._others[key].active)
        if entry := self._active.pop(catalog_id, None):
            self._keep(_Entry(entry.active))  # there may be pages of it to come

    def _entry(self, catalog_id: str, release_id: str) -> _Entry | None:
        active = self._active.get(catalog_id)
        if not release_id:
            return active
        if active and active.active.release.id == release_id and active.is_fresh:
            return active
        if other := self._others.get((catalog_id, release_id)):
            self._others.move_to_end((catalog_id, release_id))
        return other

    def _keep(self, entry: _Entry) -> None:
        """Keep a release that is not, or no more, known as the active one."""
        key = (entry.active.catalog.id, entry.active.release.id)
        self._others[key] = entry
        self._others.move_to_end(key)
        if len(self._others) > MOST_OTHERS:
            self._others.popitem(last=False)

    def _end(self, key: _Key, look: asyncio.Task[Active]) -> None:
        has_failed = look.cancelled() or look.exception() is not None
        if self._looks.get(key) is not look:
            return  # what it saw may be from before an activation
        del self._looks[key]
        catalog_id, release_id = key
        before = self._others.pop(key, None) if release_id else self._active.pop(catalog_id, None)
        if has_failed:
            return
        entry = _Entry(look.result(), _now() + self._refresh_s)
        if release_id:
            self._keep(entry)
            return
        self._active[catalog_id] = entry
        if before and before.active.release.id != entry.active.release.id:
            self._keep(_Entry(before.active))

    async def _look(self, key: _Key, known: Active | None) -> Active:
        try:
            catalog, release_id, revision = await asyncio.to_thread(self._read, key)
            active = self._loaded(catalog.id, release_id)
            if active is None:
                active = await self._artifacts.loaders.run(
                    self._load, catalog, release_id, revision
                )
            served = active.served
            if self._mapped:
                served = await self._mapped.of(active.release, served, revision)
            return active.with_news(catalog, served, revision)
        except (Unavailable, DeadlineExceeded):
            if known is None:
                raise
            return known

    def _loaded(self, catalog_id: str, release_id: str) -> Active | None:
        entries = (self._active.get(catalog_id), self._others.get((catalog_id, release_id)))
        known = (entry.active for entry in entries if entry)
        return next((active for active in known if active.release.id == release_id), None)

    def _read(self, key: _Key) -> tuple[Catalog, str, int]:
        """The catalog as it is, the release that is to answer, and the release's revision."""
        catalog_id, release_id = key
        catalog = self._records.catalogs.get(catalog_id)
        if release_id:
            _check(self._records.releases.get(release_id), catalog_id)
            return catalog, release_id, self._records.releases.synced(release_id)
        if catalog.active_release_id is None:
            raise FailedPrecondition(
                f"catalog {catalog_id!r} has no active release; train a model and publish it",
                Reason.NO_ACTIVE_RELEASE,
                {"catalog_id": catalog_id},
            )
        active_id = catalog.active_release_id
        return catalog, active_id, self._records.releases.synced(active_id)

    def _load(self, catalog: Catalog, release_id: str, revision: int) -> Active:
        release = self._records.releases.get(release_id)
        model = self._records.models.get(release.model_id)
        served = load_serving_model(self._artifacts, model, same_encoder)
        return Active(catalog, release, served, model.event_types, revision)


def _check(release: Release, catalog_id: str) -> None:
    """Raise unless a release can answer for a catalog."""
    if release.catalog_id != catalog_id:
        raise NotFound.of("release", release.id)
    if release.state is not ReleaseState.READY:
        raise FailedPrecondition(
            f"release {release.id!r} is {release.state}; only a READY or ACTIVE one answers",
            Reason.WRONG_STATE,
            {"release_id": release.id, "state": str(release.state)},
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
