"""Values of item fields by row of a release, for decays and caps.

Those of a release that is not too large are kept in memory: read once from the records, then kept
up with what changes. Of a larger one, those of the candidates are fetched at each request.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from milvine.domain.catalog import Field
from milvine.domain.entity import FieldValue, Side
from milvine.domain.errors import DeadlineExceeded, Unavailable
from milvine.records import Records
from milvine.retrieval.active import Active
from milvine.retrieval.ranking import Rows
from milvine.retrieval.search import MOST_SCORED
from milvine.retrieval.values import Column, Few, Listed, Numbers, Values
from milvine.vectors import Vectors

MOST_BYTES = 256 << 20
"""What all columns that are kept take at most; the one that was used last stays in any case."""
_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class _Key:
    release_id: str
    field: Field
    kind: type[Column]


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    column: Column
    revision: int
    """The catalog's changes up to this one are in it."""


_Page: TypeAlias = Mapping[str, Mapping[str, FieldValue]]
"""The fields of some items, by id."""
_Found: TypeAlias = dict[_Key, _Kept]


class Columns:
    """Reads values of item fields, for many requests at once.

    They are as new as what the release's filters see. While the records do not answer, what was
    read before goes on serving.
    """

    def __init__(self, records: Records, vectors: Vectors, *, most_bytes: int = MOST_BYTES) -> None:
        self._records = records
        self._vectors = vectors
        self._most_bytes = most_bytes
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._loads: dict[_Key, asyncio.Task[_Found]] = {}

    async def read(
        self,
        active: Active,
        rows: Rows,
        *,
        numbers: Collection[Field] = (),
        labels: Collection[Field] = (),
        timeout_s: float,
    ) -> Values:
        """The values of some rows.

        Args:
            active: The release.
            rows: The rows of items, (n,).
            numbers: Fields to read as numbers: INT64, DOUBLE or TIMESTAMP.
            labels: Fields to tell the distinct values of: of any type.
            timeout_s: The seconds it may take. What is loaded for a request that was given up
                is there for the next one.

        Raises:
            Unavailable: A store does not answer, and the values were not read before.
            DeadlineExceeded: It takes longer than `timeout_s`.
        """
        keys = [_Key(active.release.id, one, Numbers) for one in dict.fromkeys(numbers)]
        keys += [_Key(active.release.id, one, Listed) for one in dict.fromkeys(labels)]
        if not keys:
            return Values({}, {})
        if len(active.served.items) > MOST_SCORED:
            return await self._fetched(active, keys, rows, timeout_s)
        found = await self._current(active, keys, timeout_s)
        columns = [(key.field.name, found[key].column) for key in keys]
        return Values(
            {name: one.take(rows) for name, one in columns if isinstance(one, Numbers)},
            {name: one for name, one in columns if isinstance(one, Listed)},
        )

    async def _fetched(
        self, active: Active, keys: Sequence[_Key], rows: Rows, timeout_s: float
    ) -> Values:
        fields = list(dict.fromkeys(key.field for key in keys))
        few = np.unique(rows)  # (k,) ascending
        found = await self._vectors.fetch(
            active.layout(Side.ITEM).scores,
            active.served.items.take(few),
            fields=fields,
            timeout_s=timeout_s,
        )
        at = np.searchsorted(few, active.served.items.rows([row.id for row in found]))
        made = [
            (
                key.field.name,
                key.kind.empty(len(few)).updated(
                    at.astype(np.int32), [row.fields.get(key.field.name) for row in found]
                ),
            )
            for key in keys
        ]
        places = np.searchsorted(few, rows).astype(np.int32)
        return Values(
            {name: one.take(places) for name, one in made if isinstance(one, Numbers)},
            {name: Few(few, one) for name, one in made if isinstance(one, Listed)},
        )

    async def _current(self, active: Active, keys: Sequence[_Key], timeout_s: float) -> _Found:
        """The columns up to the release's revision."""
        found = {key: self._kept[key] for key in keys if key in self._kept}
        try:
            async with asyncio.timeout(timeout_s):
                # A load that is under way may have begun before the release went on.
                for _ in range(2):
                    if behind := _behind(keys, found, active.revision):
                        found |= await self._advanced(active, behind)
        except (Unavailable, DeadlineExceeded, TimeoutError) as fault:
            if not found.keys() >= set(keys):
                if isinstance(fault, TimeoutError):
                    raise DeadlineExceeded from fault
                raise
        for key in self._kept.keys() & found.keys():
            self._kept.move_to_end(key)
        return found

    async def _advanced(self, active: Active, behind: Sequence[_Key]) -> _Found:
        """Columns that are up to a revision of this moment, or of one shortly before."""
        own = [key for key in behind if key not in self._loads]
        if own:
            known = {key: self._kept.get(key) for key in own}
            load = asyncio.create_task(asyncio.to_thread(_load, self._records, active, known))
            self._loads |= dict.fromkeys(own, load)
            load.add_done_callback(lambda done: self._end(own, done))
        loads = {self._loads[key] for key in behind}
        results = await asyncio.gather(*map(asyncio.shield, loads))  # others wait for them, too
        return {key: one for result in results for key, one in result.items() if key in behind}

    def _end(self, keys: Sequence[_Key], load: asyncio.Task[_Found]) -> None:
        for key in keys:
            del self._loads[key]
        if load.cancelled() or load.exception() is not None:
            return
        for key, kept in load.result().items():
            self._kept[key] = kept
            self._kept.move_to_end(key)
        while len(self._kept) > 1 and self._nbytes > self._most_bytes:
            self._kept.popitem(last=False)

    @property
    def _nbytes(self) -> int:
        return sum(kept.column.nbytes for kept in self._kept.values())


def _behind(keys: Sequence[_Key], found: _Found, revision: int) -> list[_Key]:
    return [key for key in keys if key not in found or found[key].revision < revision]


def _load(records: Records, active: Active, known: Mapping[_Key, _Kept | None]) -> _Found:
    """Read columns anew, and what has changed since where they are known; blocks."""
    catalog_id, items = active.catalog.id, active.served.items
    until = records.catalogs.revision(catalog_id)  # before the reads: they may see later changes
    fresh: dict[_Key, Column] = {k: k.kind.empty(len(items)) for k, v in known.items() if not v}
    old = {key: kept.column for key, kept in known.items() if kept}
    since = min((kept.revision for kept in known.values() if kept), default=until)
    if fresh:
        fresh = _updated(active, fresh, _everything(records, active))
    if old:
        old = _updated(active, old, _changes(records, catalog_id, since, until))
    return {key: _Kept(column, until) for key, column in (fresh | old).items()}


def _updated(
    active: Active, columns: dict[_Key, Column], pages: Iterable[_Page]
) -> dict[_Key, Column]:
    for page in pages:
        rows = active.served.items.rows([*page])
        is_known = rows >= 0
        found = [fields for fields, known in zip(page.values(), is_known, strict=True) if known]
        columns = {
            key: column.updated(rows[is_known], [fields.get(key.field.name) for fields in found])
            for key, column in columns.items()
        }
    return columns


def _everything(records: Records, active: Active) -> Iterator[_Page]:
    """The items of the release; those that only interactions know are not there."""
    ids = active.served.items.ids
    for start in range(0, len(ids), _PAGE):
        some = ids[start : start + _PAGE].to_pylist()
        found = records.entities.get(active.catalog.id, Side.ITEM, some)
        yield {entity.id: entity.fields for entity in found}


def _changes(records: Records, catalog_id: str, since: int, until: int) -> Iterator[_Page]:
    revision, last_id = since, ""
    while page := records.entities.changes(
        catalog_id, Side.ITEM, since=revision, after_id=last_id, until=until, limit=_PAGE
    ):
        yield {change.id: change.entity.fields if change.entity else {} for change in page}
        revision, last_id = page[-1].revision, page[-1].id
