"""Activating, rolling back and deleting releases, and what hangs on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from milvine.artifacts import Artifacts
from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.release import Release, ReleaseState
from milvine.records import Records
from milvine.releases.collections import collections, drop_collections
from milvine.vectors import Vectors

PAGE = 1_000


class Releases:
    """What can be done with releases once they are built."""

    def __init__(
        self,
        records: Records,
        vectors: Vectors,
        artifacts: Artifacts,
        *,
        on_change: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take the stores, and whom to tell the id of a catalog whose active release changed."""
        self._records = records
        self._vectors = vectors
        self._artifacts = artifacts
        self._on_change = on_change

    async def activate(self, release_id: str, *, timeout_s: float) -> Release:
        """Make a READY release the one that serves its catalog.

        The switch is one update of the catalog's row; requests under way end on the release that
        they began with.
        """
        release = await asyncio.to_thread(self._records.releases.get, release_id)
        if release.state is not ReleaseState.READY:
            raise FailedPrecondition(
                f"release {release_id!r} is {release.state}; only a READY one can be activated",
                Reason.WRONG_STATE,
                {"release_id": release_id, "state": str(release.state)},
            )
        for name in collections(release):
            await self._vectors.load(name, timeout_s=timeout_s)
        active = replace(release, activate_time=datetime.now(UTC))
        await asyncio.to_thread(self._records.releases.save, active)
        await asyncio.to_thread(self._records.catalogs.activate, release.catalog_id, release.id)
        self._on_change(release.catalog_id)
        if self._vectors.has_aliases:
            for side in Side:
                alias = f"{release.catalog_id}_{side}s"
                await self._vectors.point(alias, release.collection(side), timeout_s=timeout_s)
        return active

    async def delete(self, release_id: str, *, timeout_s: float) -> None:
        """Delete a release with its collections.

        The row goes last: a deletion that dies half way leaves a FAILED release to delete again.
        """
        release = await asyncio.to_thread(self._records.releases.get, release_id)
        catalog = await asyncio.to_thread(self._records.catalogs.get, release.catalog_id)
        if catalog.active_release_id == release_id:
            raise FailedPrecondition(
                f"release {release_id!r} is active; activate another one first",
                Reason.RESOURCE_IN_USE,
                {"release_id": release_id},
            )
        await self._remove(release, timeout_s=timeout_s)

    async def prune(self, catalog_id: str, *, keep: int, timeout_s: float) -> None:
        """Delete all but the active and the newest `keep` other READY releases."""
        catalog = await asyncio.to_thread(self._records.catalogs.get, catalog_id)
        ready = [
            release
            for release in await self._all(catalog_id)
            if release.state is ReleaseState.READY and release.id != catalog.active_release_id
        ]
        ready.sort(key=lambda release: release.activate_time or _NEVER, reverse=True)
        for release in ready[keep:]:
            await self._remove(release, timeout_s=timeout_s)

    async def delete_catalog(self, catalog_id: str, *, force: bool, timeout_s: float) -> None:
        """Delete a catalog, with `force` also what it holds, collections and artifacts too."""
        await asyncio.to_thread(self._records.catalogs.get, catalog_id)
        if not force:
            await asyncio.to_thread(self._records.catalogs.delete, catalog_id, force=False)
            return
        for release in await self._all(catalog_id):
            await drop_collections(self._vectors, release, timeout_s=timeout_s)
        models = await asyncio.to_thread(
            self._records.models.list, catalog_id, limit=1_000_000, after=None
        )
        for model in models:
            await asyncio.to_thread(self._artifacts.delete, model.id)
        await asyncio.to_thread(self._records.catalogs.delete, catalog_id, force=True)
        self._on_change(catalog_id)

    async def delete_model(self, model_id: str, *, timeout_s: float) -> None:
        """Delete a model and its artifact, unless a release was made of it."""
        async with asyncio.timeout(timeout_s):
            await asyncio.to_thread(self._records.models.delete, model_id)
            await asyncio.to_thread(self._artifacts.delete, model_id)

    async def _remove(self, release: Release, *, timeout_s: float) -> None:
        doomed = replace(release, state=ReleaseState.FAILED, failure="is being deleted")
        await asyncio.to_thread(self._records.releases.save, doomed)
        await drop_collections(self._vectors, release, timeout_s=timeout_s)
        await asyncio.to_thread(self._records.releases.delete, release.id)

    async def _all(self, catalog_id: str) -> list[Release]:
        return await asyncio.to_thread(
            self._records.releases.list, catalog_id, limit=1_000_000, after=None
        )


_NEVER = datetime.min.replace(tzinfo=UTC)
