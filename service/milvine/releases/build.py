"""Publishing: a model becomes a release of filled, loaded and checked collections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from milvine.artifacts import Artifacts
from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, NotFound, Reason
from milvine.domain.release import Gate, Release, ReleaseState
from milvine.models.serving import ServingModel, load_serving_model
from milvine.records import Records
from milvine.releases.collections import drop_collections
from milvine.releases.follow import carry_changes
from milvine.releases.gate import SAMPLE, measure_recall
from milvine.releases.lifecycle import Releases
from milvine.releases.rows import (
    Chunk,
    Metadata,
    Users,
    item_chunks,
    live_items,
    read_metadata,
    read_users,
)
from milvine.vectors import CollectionSpec, Vectors
from milvine.vectors.layout import Layout, layout

CHUNK = 4_000
"""Rows that are encoded and handed to the vector store at a time."""
WRITE_S = 120.0
SEAL_S = 1_800.0


class Stage(StrEnum):
    """The steps of a publication."""

    WRITING_ITEMS = "WRITING_ITEMS"
    WRITING_USERS = "WRITING_USERS"
    INDEXING = "INDEXING"
    CHECKING = "CHECKING"
    ACTIVATING = "ACTIVATING"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a publication has come."""

    stage: Stage
    progress: float


@dataclass(frozen=True, slots=True)
class Order:
    """What to publish, and under which id."""

    model_id: str
    release_id: str
    hold: bool = False
    min_index_recall: float = 0.95
    keep_releases: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What the collections of a release are filled with."""

    served: ServingModel
    metadata: Mapping[Side, Metadata]
    items: NDArray[np.int64]
    """The rows of the model's items that are not deleted."""
    users: Users

    @property
    def counts(self) -> Mapping[Side, int]:
        """The rows of a collection of each side."""
        return {Side.ITEM: len(self.items), Side.USER: len(self.users.known)}

    def chunks(self, side: Side) -> Iterator[Chunk]:
        """The rows of a collection of a side."""
        if side is Side.ITEM:
            return item_chunks(self.served, self.items, self.metadata[side], size=CHUNK)
        return self.users.chunks(self.served, self.metadata[side], size=CHUNK)


@dataclass(frozen=True, slots=True)
class _Steps:
    """Turns rows that are written into progress."""

    stage: Stage
    start: float
    share: float
    report: Callable[[Progress], None]

    def say(self, done: int) -> None:
        """Report that so many rows are written."""
        self.report(Progress(self.stage, self.start + self.share * done))


class Builder:
    """Builds releases."""

    def __init__(self, records: Records, vectors: Vectors, artifacts: Artifacts) -> None:
        self._records = records
        self._vectors = vectors
        self._artifacts = artifacts
        self._releases = Releases(records, vectors, artifacts)

    async def build(self, order: Order, report: Callable[[Progress], None]) -> Release:
        """Build, check and activate a release; safe to run again after a death at any point.

        Raises:
            FailedPrecondition: A check failed. The release is FAILED, the active one stays.
        """
        release = await self._open(order)
        if release.state is ReleaseState.READY:  # died between the last check and the activation
            return await self._serve(release, order, report)
        try:
            release = await self._fill_and_check(release, order, report)
        except BaseException as fault:
            await asyncio.shield(self._abandon(release, fault))
            raise
        return await self._serve(release, order, report)

    async def _open(self, order: Order) -> Release:
        try:
            return await asyncio.to_thread(self._records.releases.get, order.release_id)
        except NotFound:
            pass
        model = await asyncio.to_thread(self._records.models.get, order.model_id)
        catalog = await asyncio.to_thread(self._records.catalogs.get, model.catalog_id)
        release = Release(
            id=order.release_id,
            catalog_id=catalog.id,
            model_id=model.id,
            state=ReleaseState.BUILDING,
            item_fields=catalog.item_fields,
            user_fields=catalog.user_fields,
            vector_index=catalog.vector_index,
        )
        return await asyncio.to_thread(self._records.releases.create, release)

    async def _fill_and_check(
        self, release: Release, order: Order, report: Callable[[Progress], None]
    ) -> Release:
        revision = await asyncio.to_thread(self._records.catalogs.revision, release.catalog_id)
        source = await asyncio.to_thread(self._read, release)
        sides = {
            side: layout(release, side, source.served.dimension, source.served.taste_dimension)
            for side in Side
        }
        for stage, side, start in (
            (Stage.WRITING_ITEMS, Side.ITEM, 0.0),
            (Stage.WRITING_USERS, Side.USER, 0.4),
        ):
            steps = _Steps(stage, start, 0.4 / max(1, source.counts[side]), report)
            await self._write(sides[side], source.chunks(side), steps)
        report(Progress(Stage.INDEXING, 0.8))
        await self._seal(
            [(spec, source.counts[side]) for side in Side for spec in sides[side].specs]
        )
        report(Progress(Stage.CHECKING, 0.95))
        gate = await self._check(sides[Side.ITEM], source, order)
        await asyncio.to_thread(self._records.releases.set_synced, release.id, revision)
        await carry_changes(self._records, self._vectors, release, source.served)
        ready = replace(
            release,
            state=ReleaseState.READY,
            item_count=source.counts[Side.ITEM],
            user_count=source.counts[Side.USER],
            gate=gate,
        )
        await asyncio.to_thread(self._records.releases.save, ready)
        return ready

    def _read(self, release: Release) -> Source:
        """Read what the collections will hold; blocks."""
        model = self._records.models.get(release.model_id)
        catalog = self._records.catalogs.get(release.catalog_id)
        served = load_serving_model(self._artifacts, model)
        metadata = {side: read_metadata(self._records, release, side) for side in Side}
        events = self._records.interactions.scan(catalog.id, event_types=model.event_types or None)
        return Source(
            served,
            metadata,
            live_items(served, metadata[Side.ITEM]),
            read_users(served, catalog, events, metadata[Side.USER]),
        )

    async def _write(self, target: Layout, chunks: Iterator[Chunk], steps: _Steps) -> None:
        for spec in target.specs:
            await self._vectors.create(spec, timeout_s=WRITE_S)
        done = 0
        while chunk := await asyncio.to_thread(next, chunks, None):
            for spec, values in target.split(chunk.vectors):
                await self._vectors.write(
                    spec, chunk.ids, values, chunk.fields, fresh=True, timeout_s=WRITE_S
                )
            done += len(chunk.ids)
            steps.say(done)

    async def _seal(self, written: Sequence[tuple[CollectionSpec, int]]) -> None:
        """Index and load what was written, side by side: a server mostly waits for its schedule."""
        await asyncio.gather(*(self._vectors.seal(spec, timeout_s=SEAL_S) for spec, _ in written))
        for spec, expected in written:
            found = await self._vectors.count(spec.name, timeout_s=WRITE_S)
            if found != expected:
                raise FailedPrecondition(
                    f"a collection has {found:,} rows in place of {expected:,}; publish again",
                    Reason.GATE_FAILED,
                    {"check": "row_count", "collection": spec.name},
                )

    async def _check(self, target: Layout, source: Source, order: Order) -> Gate:
        queries = await asyncio.to_thread(source.users.sample, source.served, SAMPLE)
        exact = source.served.item_vectors[source.items]
        recall = await measure_recall(self._vectors, target.scores, queries, exact)
        if recall < order.min_index_recall:
            raise FailedPrecondition(
                f"the live index finds {recall:.3f} of the exact best hits, "
                f"less than {order.min_index_recall:.3f}; "
                "raise vector_index.hnsw_search_candidates of the catalog, or use FLAT",
                Reason.GATE_FAILED,
                {"check": "index_recall", "index_recall": f"{recall:.4f}"},
            )
        return Gate(recall, len(queries), order.min_index_recall)

    async def _serve(
        self, release: Release, order: Order, report: Callable[[Progress], None]
    ) -> Release:
        if order.hold:
            return release
        report(Progress(Stage.ACTIVATING, 0.99))
        active = await self._releases.activate(release.id, timeout_s=WRITE_S)
        await self._releases.prune(release.catalog_id, keep=order.keep_releases, timeout_s=WRITE_S)
        return active

    async def _abandon(self, release: Release, fault: BaseException) -> None:
        """Leave nothing half built: the row says why it failed, the collections go."""
        words = str(fault) or "the publication was cancelled"
        failed = replace(release, state=ReleaseState.FAILED, failure=words)
        await asyncio.to_thread(self._records.releases.save, failed)
        await drop_collections(self._vectors, release, timeout_s=WRITE_S)
