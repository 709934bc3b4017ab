"""Items that a model did not learn, as a release has them: placed by their content.

The store has their vectors, from the build and from what follows the changes of items. They are
known here by rows after those of the model, in the order in which this process came to know them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from milvine.domain.entity import Side
from milvine.domain.release import Release
from milvine.models.serving import ServingModel
from milvine.records import Records
from milvine.vectors import Row, Vectors
from milvine.vectors.layout import layout

MOST_RELEASES = 64
"""Of how many releases the rows are remembered."""
READ_S = 30.0
EVERYTHING = 2**31 - 1
_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    served: ServingModel
    revision: int


class MappedItems:
    """The models of releases with the items that were placed by their content."""

    def __init__(self, records: Records, vectors: Vectors) -> None:
        self._records = records
        self._vectors = vectors
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def of(self, release: Release, served: ServingModel, revision: int) -> ServingModel:
        """The model of a release with all items that it has in a revision, at least.

        Rows that were given once stay, so that what was kept by row stays right.

        Raises:
            Unavailable: A store does not answer.
        """
        if not served.places_items:
            return served
        async with self._turns[release.id]:
            known = self._known.get(release.id)
            if known is None:
                known = _Known(await self._all(release, served), revision)
            elif known.revision < revision:
                known = _Known(await self._changed(release, known, revision), revision)
            self._known[release.id] = known
            self._known.move_to_end(release.id)
            if len(self._known) > MOST_RELEASES:
                self._turns.pop(self._known.popitem(last=False)[0], None)
            return known.served

    async def _all(self, release: Release, served: ServingModel) -> ServingModel:
        spec = layout(release, Side.ITEM, served.dimension, served.taste_dimension).scores
        ids = await self._vectors.match(
            spec, expression="", limit=EVERYTHING, strong=True, timeout_s=READ_S
        )
        return await self._with(release, served, ids)

    async def _changed(self, release: Release, known: _Known, revision: int) -> ServingModel:
        """With the items that changed since."""
        served, since, after_id = known.served, known.revision, ""
        while page := await asyncio.to_thread(
            self._records.entities.changes,
            release.catalog_id,
            Side.ITEM,
            since=since,
            after_id=after_id,
            until=revision,
            limit=_AT_ONCE,
        ):
            served = await self._with(release, served, [change.id for change in page])
            since, after_id = page[-1].revision, page[-1].id
        return served

    async def _with(
        self, release: Release, served: ServingModel, ids: Sequence[str]
    ) -> ServingModel:
        """The model with those of some items that it did not learn, as the store has them."""
        rows = await asyncio.to_thread(served.items.rows, ids)
        is_learned = (rows >= 0) & (rows < served.items.fixed)
        others = [ids[place] for place in np.flatnonzero(~is_learned).tolist()]
        spec = layout(release, Side.ITEM, served.dimension, served.taste_dimension).scores
        found: list[Row] = []
        for start in range(0, len(others), _AT_ONCE):
            found += await self._vectors.fetch(
                spec,
                others[start : start + _AT_ONCE],
                with_vector=True,
                strong=True,
                timeout_s=READ_S,
            )
        if not found:
            return served
        found.sort(key=lambda row: row.id)
        vectors = np.stack([row.vector for row in found if row.vector is not None])
        return await asyncio.to_thread(served.with_items, [row.id for row in found], vectors)
