"""Publishing: a model becomes a release of filled, loaded and checked collections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.artifacts import Artifacts
from milvine.domain.catalog import Catalog
from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.operation import Operation
from milvine.domain.progress import PublishProgress, PublishStage
from milvine.domain.release import Gate, PublishRequest, Release, ReleaseState, TextIndex
from milvine.models.serving import ServingModel, load_serving_model
from milvine.records import Records
from milvine.releases.follow import carry_changes
from milvine.releases.gate import SAMPLE, best_scores, measure_recall
from milvine.releases.lifecycle import Releases
from milvine.releases.placing import encoded, with_new_items
from milvine.releases.rows import (
    Chunk,
    Metadata,
    Users,
    item_chunks,
    live_items,
    read_metadata,
    read_users,
)
from milvine.text import TextEncoder, same_encoder, text_encoder
from milvine.vectors import CollectionSpec, Vectors
from milvine.vectors.layout import Layout, layout, text_spec

CHUNK = 4_000
"""Rows that are encoded and handed to the vector store at a time."""
WRITE_S = 120.0
SEAL_S = 1_800.0

Report: TypeAlias = Callable[[PublishProgress], None]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What the collections of a release are filled with."""

    served: ServingModel
    metadata: Mapping[Side, Metadata]
    items: NDArray[np.int64]
    """The rows of the model's items that are not deleted, and of those placed by content."""
    users: Users

    @property
    def counts(self) -> Mapping[Side, int]:
        """The rows of a collection of each side."""
        return {Side.ITEM: len(self.items), Side.USER: len(self.users.known)}

    async def with_new_items(self) -> Source:
        """With the items that the model did not learn, where what they say places them."""
        items = self.metadata[Side.ITEM].fields
        served = await with_new_items(self.served, items)
        added = np.arange(len(self.served.items), len(served.items))
        return replace(self, served=served, items=np.append(self.items, added))

    def chunks(self, side: Side) -> Iterator[Chunk]:
        """The rows of a collection of a side."""
        if side is Side.ITEM:
            return item_chunks(self.served, self.items, self.metadata[side], size=CHUNK)
        return self.users.chunks(self.served, self.metadata[side], size=CHUNK)


@dataclass(frozen=True, slots=True)
class _Steps:
    """Turns rows that are written into progress."""

    stage: PublishStage
    start: float
    share: float
    report: Report

    def say(self, done: int) -> None:
        """Report that so many rows are written."""
        self.report(PublishProgress(self.stage, self.start + self.share * done))


class Builder:
    """Builds releases."""

    def __init__(
        self,
        records: Records,
        vectors: Vectors,
        artifacts: Artifacts,
        *,
        encoder: TextEncoder | None = None,
    ) -> None:
        """Take the stores, and what reads the texts of items; None: the hashing encoder."""
        self._encoder = encoder or text_encoder("hashing")
        self._records = records
        self._vectors = vectors
        self._artifacts = artifacts
        self._releases = Releases(records, vectors, artifacts)

    async def build(self, request: PublishRequest, by: Operation, report: Report) -> Release:
        """Build, check and activate a release; safe to run again after a death at any point.

        Whatever ends it early, it leaves as it stands: the records know what belongs to nobody
        once the operation has ended.

        Args:
            request: What to publish.
            by: The operation, as its worker has claimed it.
            report: Told of each step.

        Raises:
            FailedPrecondition: A check failed; the active release stays.
            Aborted: The operation has ended, or another worker has taken it up.
        """
        release = await asyncio.to_thread(self._begin, request, by)
        if release.state is not ReleaseState.READY:  # else one died just before the activation
            release = await self._fill_and_check(release, request, report)
        if not request.hold:
            report(PublishProgress(PublishStage.ACTIVATING, 0.99))
            await self._releases.activate(release.id, timeout_s=WRITE_S)
            await self._releases.prune(release.catalog_id, keep=request.keep_releases)
        return await asyncio.to_thread(self._records.releases.get, release.id)

    def _begin(self, request: PublishRequest, by: Operation) -> Release:
        model = self._records.models.get(request.model_id)
        catalog = self._records.catalogs.get(model.catalog_id)
        release = Release(
            id=request.release_id,
            catalog_id=catalog.id,
            model_id=model.id,
            state=ReleaseState.BUILDING,
            item_fields=catalog.item_fields,
            user_fields=catalog.user_fields,
            vector_index=catalog.vector_index,
            operation_id=by.id,
            attempt=by.attempts,
            text=self._text_index(catalog),
        )
        return self._records.releases.begin(release)

    def _text_index(self, catalog: Catalog) -> TextIndex | None:
        names = tuple(field.name for field in catalog.text_fields)
        if not names:
            return None
        encoder = self._encoder
        return TextIndex(names, encoder.name, encoder.fingerprint, encoder.dimension)

    async def _fill_and_check(
        self, release: Release, request: PublishRequest, report: Report
    ) -> Release:
        revision = await asyncio.to_thread(self._records.catalogs.revision, release.catalog_id)
        source = await asyncio.to_thread(self._read, release)
        source = await source.with_new_items()
        sides = {
            side: layout(release, side, source.served.dimension, source.served.taste_dimension)
            for side in Side
        }
        for stage, side, start in (
            (PublishStage.WRITING_ITEMS, Side.ITEM, 0.0),
            (PublishStage.WRITING_USERS, Side.USER, 0.4),
        ):
            steps = _Steps(stage, start, 0.4 / max(1, source.counts[side]), report)
            await self._write(sides[side], source.chunks(side), steps)
        texts = await self._write_texts(release, source.metadata[Side.ITEM])
        report(PublishProgress(PublishStage.INDEXING, 0.8))
        await self._seal(
            [(spec, source.counts[side]) for side in Side for spec in sides[side].specs] + texts
        )
        report(PublishProgress(PublishStage.CHECKING, 0.95))
        gate = await self._check(sides[Side.ITEM], source, request.min_index_recall)
        await asyncio.to_thread(self._records.releases.set_synced, release.id, revision)
        await carry_changes(self._records, self._vectors, release, source.served)
        counts = source.counts
        built = replace(
            release, item_count=counts[Side.ITEM], user_count=counts[Side.USER], gate=gate
        )
        return await asyncio.to_thread(self._records.releases.finish, built)

    def _read(self, release: Release) -> Source:
        """Read what the collections will hold; blocks."""
        model = self._records.models.get(release.model_id)
        catalog = self._records.catalogs.get(release.catalog_id)
        served = load_serving_model(self._artifacts, model, same_encoder)
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

    async def _write_texts(
        self, release: Release, metadata: Metadata
    ) -> list[tuple[CollectionSpec, int]]:
        """Write what items say; the collection with its rows, where there is one."""
        if release.text is None:
            return []
        spec, done = text_spec(release, release.text), 0
        await self._vectors.create(spec, timeout_s=WRITE_S)
        said = encoded(self._encoder, release.text.fields, metadata.fields)
        async for ids, vectors in said:
            fields = [metadata.fields[id_] for id_ in ids]
            await self._vectors.write(spec, ids, vectors, fields, fresh=True, timeout_s=WRITE_S)
            done += len(ids)
        return [(spec, done)]

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

    async def _check(self, target: Layout, source: Source, min_recall: float) -> Gate:
        served = source.served
        queries = await asyncio.to_thread(source.users.sample, served, SAMPLE)
        exact = await asyncio.to_thread(best_scores, queries, served.item_vectors, source.items)
        recall = await measure_recall(self._vectors, target.scores, queries, exact)
        if recall < min_recall:
            raise FailedPrecondition(
                f"the live index finds {recall:.3f} of the exact best hits, "
                f"less than {min_recall:.3f}; "
                "raise vector_index.hnsw_search_candidates of the catalog, or use FLAT",
                Reason.GATE_FAILED,
                {"check": "index_recall", "index_recall": f"{recall:.4f}"},
            )
        return Gate(recall, len(queries), min_recall)
