"""Activating, rolling back and deleting releases, and what hangs on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from milvine.artifacts import Artifacts
from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, MilvineError, NotFound
from milvine.domain.release import ReleaseState
from milvine.records import Records
from milvine.releases.sweep import Sweeper
from milvine.vectors import Vectors

TIDY_S = 5.0
"""How long a deletion that is done stays to tidy up."""


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
        self._sweeper = Sweeper(records, vectors, artifacts)
        self._on_change = on_change

    async def activate(self, release_id: str, *, timeout_s: float) -> None:
        """Make a READY release the one that serves its catalog.

        The switch is one transaction; requests under way end on the release that they began with.

        Raises:
            NotFound: There is no such release.
            FailedPrecondition: It is not READY.
        """
        release = await asyncio.to_thread(self._records.releases.get, release_id)
        if release.state is ReleaseState.READY:
            for name in release.collections():
                await self._vectors.load(name, timeout_s=timeout_s)
        await asyncio.to_thread(self._records.catalogs.activate, release.catalog_id, release.id)
        self._on_change(release.catalog_id)
        for side in Side:
            alias = f"{release.catalog_id}_{side}s"
            await self._vectors.point(alias, release.collection(side), timeout_s=timeout_s)

    async def delete(self, release_id: str, *, timeout_s: float) -> None:
        """Delete a release with its collections.

        Raises:
            NotFound: There is no such release.
            FailedPrecondition: It serves its catalog, or is being built.
        """
        await asyncio.to_thread(self._records.releases.delete, release_id)
        await self._tidy_up(timeout_s)

    async def prune(self, catalog_id: str, *, keep: int) -> None:
        """Delete all but the active and `keep` other releases, those that were active last.

        One that has never been active waits for someone to decide, and stays.
        """
        catalog = await asyncio.to_thread(self._records.catalogs.get, catalog_id)
        every = await asyncio.to_thread(self._records.releases.list, catalog_id, limit=1_000_000)
        served = [(r.activate_time, r.id) for r in every if r.activate_time is not None]
        old = [i for _, i in sorted(served, reverse=True) if i != catalog.active_release_id]
        for release_id in old[keep:]:
            with contextlib.suppress(NotFound, FailedPrecondition):  # someone else was quicker
                await asyncio.to_thread(self._records.releases.delete, release_id)

    async def delete_catalog(self, catalog_id: str, *, force: bool, timeout_s: float) -> None:
        """Delete a catalog, with `force` also what it holds, collections and artifacts too.

        Raises:
            NotFound: There is no such catalog.
            FailedPrecondition: It holds something, and `force` is not set.
        """
        await asyncio.to_thread(self._records.catalogs.delete, catalog_id, force=force)
        self._on_change(catalog_id)
        await self._tidy_up(timeout_s)

    async def delete_model(self, model_id: str, *, timeout_s: float) -> None:
        """Delete a model and its artifact, unless a release was made of it.

        Raises:
            NotFound: There is no such model.
            FailedPrecondition: A release was made of it.
        """
        await asyncio.to_thread(self._records.models.delete, model_id)
        await self._tidy_up(timeout_s)

    async def _tidy_up(self, timeout_s: float) -> None:
        """Remove what was deleted while there is time; a worker removes what is left."""
        with contextlib.suppress(MilvineError, TimeoutError):
            async with asyncio.timeout(min(TIDY_S, timeout_s / 2)):
                while await self._sweeper.sweep():
                    pass
