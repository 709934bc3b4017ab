"""Items that came after a model was trained: what the releases hold of them, known here by row.

A release of a model that gives vectors to new items holds more items than the model learned, and
more of them as they are written. Exact scoring, rankings and pages need every item that can be
found in memory, by a row. So each process reads the ids that a release gained from the records,
and their vectors from the release's own collection: whatever made them, it was done once. Rows of
new items only grow, and differ between processes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import Side
from milvine.models.serving import ServingModel
from milvine.records import Records
from milvine.retrieval.active import MOST_OTHERS, Active
from milvine.vectors import Vectors

MOST_RELEASES = 4 * MOST_OTHERS
"""How many releases' new items are kept; the longest unused go first."""
FETCHED = 1_000
"""Vectors that are read at a time."""
READ_S = 30.0
_PAGE = 10_000


class Releases(Protocol):
    """Where a release that answers is found."""

    async def get(self, catalog_id: str, release_id: str = "") -> Active:
        """A release of a catalog: the active one, or the one that is named."""


@dataclass(frozen=True, slots=True)
class _Known:
    before: Active
    """As it was given."""
    active: Active
    """With the new items up to its revision."""


class WithNewItems:
    """Releases that answer, with the items that they gained.

    Gains are read once a release's revision has grown; requests that come meanwhile, or while they
    can't be read, get the release as it was before. Only the first request for a release waits.
    """

    def __init__(self, releases: Releases, records: Records, vectors: Vectors) -> None:
        self._releases = releases
        self._records = records
        self._vectors = vectors
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._reads: dict[str, asyncio.Task[Active]] = {}

    async def get(self, catalog_id: str, release_id: str = "") -> Active:
        """A release of a catalog: the active one, or the one that is named.

        Raises:
            NotFound: There is no such catalog, or it has no such release.
            FailedPrecondition: It has no active release, or the one that is named is not READY.
            Unavailable: A store does not answer, and it has not been asked for before.
            DeadlineExceeded: The store of vectors takes too long to tell the new items.
        """
        active = await self._releases.get(catalog_id, release_id)
        if active.served.item_encoder is None:
            return active
        known = self._known.get(active.release.id)
        if known and known.before is active:
            return known.active
        if known and known.active.revision >= active.revision:
            return self._keep(active, replace(known.active, catalog=active.catalog))
        read = self._reads.get(active.release.id) or self._start(active, known)
        return known.active if known else await asyncio.shield(read)  # others wait for it, too

    def _keep(self, before: Active, active: Active) -> Active:
        self._known[active.release.id] = _Known(before, active)
        self._known.move_to_end(active.release.id)
        if len(self._known) > MOST_RELEASES:
            self._known.popitem(last=False)
        return active

    def _start(self, active: Active, known: _Known | None) -> asyncio.Task[Active]:
        read = asyncio.create_task(self._read(active, known))
        self._reads[active.release.id] = read
        read.add_done_callback(lambda done: self._end(active, done))
        return read

    def _end(self, active: Active, read: asyncio.Task[Active]) -> None:
        del self._reads[active.release.id]
        if not read.cancelled() and read.exception() is None:
            self._keep(active, read.result())

    async def _read(self, active: Active, known: _Known | None) -> Active:
        served = known.active.served if known else active.served
        ids = await asyncio.to_thread(self._written, active, known)
        if vectors := await self._fetch(active, ids):
            served = await asyncio.to_thread(_with_vectors, served, vectors)
        return replace(active, served=served)

    def _written(self, active: Active, known: _Known | None) -> list[str]:
        """The items that were written up to the release's revision and not learned; blocks."""
        catalog_id, learned = active.catalog.id, active.served.learned
        if known is None:
            pages: Iterable[Sequence[str]] = (
                page.ids for page in self._records.entities.values(catalog_id, Side.ITEM, ())
            )
        else:
            pages = self._changed(catalog_id, known.active.revision, active.revision)
        return [id_ for page in pages for id_ in _not_in(learned.rows(page), page)]

    def _changed(self, catalog_id: str, since: int, until: int) -> Iterator[Sequence[str]]:
        revision, last_id = since, ""
        while page := self._records.entities.changes(
            catalog_id, Side.ITEM, since=revision, after_id=last_id, until=until, limit=_PAGE
        ):
            yield [change.id for change in page if change.entity is not None]
            revision, last_id = page[-1].revision, page[-1].id

    async def _fetch(self, active: Active, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors that the release has of some items."""
        spec = active.layout(Side.ITEM).scores
        found: dict[str, NDArray[np.float32]] = {}
        for at in range(0, len(ids), FETCHED):
            rows = await self._vectors.fetch(
                spec, ids[at : at + FETCHED], with_vector=True, strong=True, timeout_s=READ_S
            )
            found |= {row.id: row.vector for row in rows if row.vector is not None}
        return found


def _not_in(rows: NDArray[np.int32], ids: Sequence[str]) -> list[str]:
    return [ids[place] for place in np.flatnonzero(rows < 0).tolist()]


def _with_vectors(served: ServingModel, vectors: dict[str, NDArray[np.float32]]) -> ServingModel:
    """The model with vectors of new items, also in place of those that it had."""
    ids = list(vectors)
    rows = served.items.rows(ids)
    is_new = rows < 0
    found = np.stack(list(vectors.values())).astype(np.float32, copy=False)
    grown = served.with_items(_not_in(rows, ids), found[is_new])
    if not is_new.all():
        changed = grown.item_vectors.copy()
        changed[rows[~is_new]] = found[~is_new]
        grown = replace(grown, item_vectors=changed)
    return grown
