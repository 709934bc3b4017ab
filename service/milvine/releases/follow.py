"""Carrying changes of items and users into the collections of live releases.

The records are the truth. A release remembers the revision up to which its collections have
followed them, so a change is carried over late at worst, and never lost: also when it was written
while the release was being built, or while the vector store was away.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import structlog
from numpy.typing import NDArray

from milvine.artifacts import Artifacts
from milvine.domain.entity import Entity, Side
from milvine.domain.errors import MilvineError
from milvine.domain.release import Release, ReleaseState
from milvine.models.serving import ServingModel, load_serving_model
from milvine.records import Change, Records
from milvine.releases.placing import Placer
from milvine.releases.rows import project, user_vectors
from milvine.releases.texts import TextCarrier
from milvine.text import same_encoder
from milvine.vectors import Vectors
from milvine.vectors.layout import Layout, layout

log = structlog.get_logger(__name__)

PAGE = 500
PAUSE_S = 0.2
REST_S = 1.0
"""After changes were carried over, those of so long go together: ten upserts of a Milvus server in
two seconds kept its searches for half as long again as two of as many rows, and Lite's for twice
as long."""
LEASE_S = 10.0
CHECK_S = 5.0
"""How often it looks whether what serves is loaded."""
WRITE_S = 60.0
FIRST_REST_S = 0.5
LONGEST_REST_S = 60.0


class Follower:
    """Keeps every READY release up with the records; one per deployment at a time, by a lease.

    A release that can't be followed rests for a while, and keeps none of the others waiting.
    """

    def __init__(
        self, records: Records, vectors: Vectors, artifacts: Artifacts, *, worker_id: str
    ) -> None:
        self._records = records
        self._vectors = vectors
        self._worker_id = worker_id
        self._artifacts = artifacts
        self._next_check = 0.0
        self._rests = _Rests()
        self._load = lru_cache(maxsize=4)(self._load_model)

    async def run(self, stopping: asyncio.Event) -> None:
        """Follow until `stopping` is set."""
        while not stopping.is_set():
            pause_s = PAUSE_S
            try:
                if await self._look():
                    pause_s = REST_S
            except MilvineError as fault:
                log.warning("cannot follow changes", reason=str(fault.reason), error=str(fault))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), pause_s)
        with contextlib.suppress(MilvineError):
            await asyncio.to_thread(self._records.leases.drop, "follow", self._worker_id)

    async def _look(self) -> bool:
        """Follow once; whether there was anything to carry over."""
        if not await self._hold():
            return False
        live = await asyncio.to_thread(self._records.releases.live)
        ready = [release for release in live if release.state is ReleaseState.READY]
        self._rests.forget_all_but({release.id for release in ready})
        is_check_due = time.monotonic() >= self._next_check
        awake = [release for release in ready if not self._rests.is_resting(release.id)]
        carried = [await self._follow(release, check=is_check_due) for release in awake]
        if is_check_due:
            self._next_check = time.monotonic() + CHECK_S
        return any(carried)

    async def _hold(self) -> bool:
        """Take or prolong the lease; whether it is ours."""
        return await asyncio.to_thread(
            self._records.leases.hold, "follow", self._worker_id, seconds=LEASE_S
        )

    async def _follow(self, release: Release, *, check: bool) -> bool:
        """Bring a release up with the records, or let it rest; whether it was behind."""
        is_behind = False
        try:
            if check:
                await self._keep_loaded(release)
            is_behind = await self._is_behind(release)
            if is_behind:
                served = await asyncio.to_thread(self._load, release.model_id)
                await carry_changes(
                    self._records, self._vectors, release, served, on_page=self._hold
                )
        except MilvineError as fault:
            rest_s = self._rests.begin(release.id)
            log.warning(
                "cannot follow changes",
                release=release.id,
                reason=str(fault.reason),
                error=str(fault),
                again_in_s=rest_s,
            )
        else:
            self._rests.end(release.id)
        return is_behind

    async def _keep_loaded(self, release: Release) -> None:
        """Load what a restart or an operator took out of the vector store's memory."""
        for name in release.collections():
            if not await self._vectors.is_loaded(name, timeout_s=WRITE_S):
                await self._vectors.load(name, timeout_s=WRITE_S)
                await self._hold()

    def _load_model(self, model_id: str) -> ServingModel:
        return load_serving_model(self._artifacts, self._records.models.get(model_id), same_encoder)

    async def _is_behind(self, release: Release) -> bool:
        revision = await asyncio.to_thread(self._records.catalogs.revision, release.catalog_id)
        return revision > await asyncio.to_thread(self._records.releases.synced, release.id)


class _Rests:
    """The releases that failed lately: each rests, after every failure twice as long."""

    def __init__(self) -> None:
        self._rests: dict[str, tuple[float, float]] = {}  # how long, until when

    def begin(self, release_id: str) -> float:
        """Let a release rest; for how many seconds."""
        last, _ = self._rests.get(release_id, (0.0, 0.0))
        length = min(max(2 * last, FIRST_REST_S), LONGEST_REST_S)
        self._rests[release_id] = (length, time.monotonic() + length)
        return length

    def is_resting(self, release_id: str) -> bool:
        """Whether its rest lasts."""
        return release_id in self._rests and time.monotonic() < self._rests[release_id][1]

    def end(self, release_id: str) -> None:
        """Forget its failures."""
        self._rests.pop(release_id, None)

    def forget_all_but(self, release_ids: Collection[str]) -> None:
        """Forget releases that are gone."""
        self._rests = {i: rest for i, rest in self._rests.items() if i in release_ids}


async def carry_changes(
    records: Records,
    vectors: Vectors,
    release: Release,
    served: ServingModel,
    *,
    on_page: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Carry what changed since the release's revision, until now, into its collections.

    What changes meanwhile is left for the next time, so it ends however much is written.
    `on_page` is awaited after every PAGE changes at most. Two that carry at one time do no harm:
    the one that wrote something old over something new then sets the release's revision back.
    """
    since = await asyncio.to_thread(records.releases.synced, release.id)
    until = await asyncio.to_thread(records.catalogs.revision, release.catalog_id)
    for side in Side:
        target = layout(release, side, served.dimension, served.taste_dimension)
        carriers: list[_Carrier | TextCarrier] = [
            _Carrier(records, vectors, target, served, side, release.catalog_id)
        ]
        if side is Side.ITEM and release.text:
            carriers.append(TextCarrier.of(vectors, release, release.text))
        revision, last_id = since, ""
        while page := await asyncio.to_thread(
            records.entities.changes,
            release.catalog_id,
            side,
            since=revision,
            after_id=last_id,
            until=until,
            limit=PAGE,
        ):
            for carrier in carriers:
                await carrier.carry(page)
            revision, last_id = page[-1].revision, page[-1].id
            if on_page:
                await on_page()
    await asyncio.to_thread(records.releases.set_synced, release.id, until)


@dataclass(frozen=True, slots=True)
class _Carrier:
    """Carries changes into the collections of one side of a release."""

    records: Records
    vectors: Vectors
    target: Layout
    served: ServingModel
    side: Side
    catalog_id: str

    async def carry(self, page: Sequence[Change]) -> None:
        live = {change.id: change.entity for change in page if change.entity is not None}
        known = await self._known_vectors(live)
        gone = [change.id for change in page if change.entity is None]
        if self._places:
            gone += [id_ for id_ in live if id_ not in known]  # it may have said something before
        if gone:
            for spec in self.target.specs:
                await self.vectors.delete(spec.name, gone, timeout_s=WRITE_S)
        if not known:
            return
        names = frozenset(field.name for field in self.target.scores.fields)
        ids = list(known)
        fields = [project(live[i].fields, names) for i in ids]
        for spec, values in self.target.split(np.stack(list(known.values()))):
            await self.vectors.write(spec, ids, values, fields, fresh=False, timeout_s=WRITE_S)

    @property
    def _places(self) -> bool:
        """Whether those of this side have vectors by what is written of them."""
        if self.side is Side.ITEM:
            return self.served.places_items
        return self.served.user_encoding is not None

    async def _known_vectors(self, live: Mapping[str, Entity]) -> dict[str, NDArray[np.float32]]:
        """The vectors by id: an item's is the model's, a user's the one that the release has."""
        ids = list(live)
        if self.side is Side.ITEM:
            return await self._item_vectors(live)
        if self._places and ids:
            fields = {i: entity.fields for i, entity in live.items()}
            place = user_vectors
            return await asyncio.to_thread(
                place, self.records, self.catalog_id, self.served, fields
            )
        found = await self.vectors.fetch(
            # A build may have written them a moment ago.
            self.target.scores,
            ids,
            with_vector=True,
            strong=True,
            timeout_s=WRITE_S,
        )
        return {row.id: row.vector for row in found if row.vector is not None}

    async def _item_vectors(self, live: Mapping[str, Entity]) -> dict[str, NDArray[np.float32]]:
        """What the model learned, or by what they say."""
        items = self.served.items
        rows = zip(live, items.rows(list(live)).tolist(), strict=True)
        learned = {i: self.served.item_vectors[row] for i, row in rows if 0 <= row < items.fixed}
        placer = Placer.of(self.served)
        if placer is None:
            return learned
        others = {i: entity.fields for i, entity in live.items() if i not in learned}
        return learned | await placer.place(others)
