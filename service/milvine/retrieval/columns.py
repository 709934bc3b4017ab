"""Values of item fields by row of a release, for decays and caps.

They are kept in memory: read once from the records, then kept up with what changes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from milvine.domain.catalog import Field
from milvine.domain.entity import Side
from milvine.domain.errors import DeadlineExceeded, Unavailable
from milvine.records import FieldValues, Records
from milvine.retrieval.active import Active
from milvine.retrieval.ranking import Rows
from milvine.retrieval.values import Column, Listed, Numbers, Values

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


_Found: TypeAlias = dict[_Key, _Kept]


class Columns:
    """Reads values of item fields, for many requests at once.

    They are as new as what the release's filters see. While the records do not answer, what was
    read before goes on serving.
    """

    def __init__(self, records: Records, *, most_bytes: int = MOST_BYTES) -> None:
        self._records = records
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
        """Values of items.

        Args:
            active: The release.
            rows: The items whose numbers are read, (n,).
            numbers: Fields to read as numbers: INT64, DOUBLE or TIMESTAMP.
            labels: Fields to tell the distinct values of, of any type and for any rows.
            timeout_s: The seconds it may take. What is loaded for a request that was given up
                is there for the next one.

        Raises:
            Unavailable: The records do not answer, and the values were not read before.
            DeadlineExceeded: It takes longer than `timeout_s`.
        """
        keys = [_Key(active.release.id, one, Numbers) for one in dict.fromkeys(numbers)]
        keys += [_Key(active.release.id, one, Listed) for one in dict.fromkeys(labels)]
        if not keys:
            return Values({}, {})
        found = await self._current(active, keys, timeout_s)
        columns = [(key.field.name, found[key].column) for key in keys]
        return Values(
            {name: one.take(rows) for name, one in columns if isinstance(one, Numbers)},
            {name: one for name, one in columns if isinstance(one, Listed)},
        )

    async def _current(self, active: Active, keys: Sequence[_Key], timeout_s: float) -> _Found:
        """The columns up to the release's revision."""
        found = {key: self._kept[key] for key in keys if key in self._kept}
        try:
            async with asyncio.timeout(timeout_s):
                # A load that is under way may have begun before the release went on.
                for _ in range(2):
                    if behind := _behind(keys, found, active):
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


def _behind(keys: Sequence[_Key], found: _Found, active: Active) -> list[_Key]:
    """The columns that miss changes of the release, or items that came to it."""
    count = len(active.served.items)
    return [
        key
        for key in keys
        if key not in found
        or found[key].revision < active.revision
        or len(found[key].column) < count
    ]


def _load(records: Records, active: Active, known: Mapping[_Key, _Kept | None]) -> _Found:
    """Read columns anew, and what has changed since where they are known; blocks."""
    catalog_id, items = active.catalog.id, active.served.items
    until = records.catalogs.revision(catalog_id)  # before the reads: they may see later changes
    fresh: dict[_Key, Column] = {k: k.kind.empty(len(items)) for k, v in known.items() if not v}
    old = _grown(records, active, {key: kept.column for key, kept in known.items() if kept})
    since = min((kept.revision for kept in known.values() if kept), default=until)
    if fresh:
        names = list(dict.fromkeys(key.field.name for key in fresh))
        fresh = _updated(active, fresh, records.entities.values(catalog_id, Side.ITEM, names))
    if old:
        names = list(dict.fromkeys(key.field.name for key in old))
        old = _updated(active, old, _changes(records, catalog_id, names, since, until))
    return {key: _Kept(column, until) for key, column in (fresh | old).items()}


def _grown(records: Records, active: Active, columns: dict[_Key, Column]) -> dict[_Key, Column]:
    """Columns with the rows of all items; what the new ones are is read."""
    items = active.served.items
    known = min((len(column) for column in columns.values()), default=len(items))
    if known >= len(items):
        return columns
    added = items.take(np.arange(known, len(items)))
    fields = {e.id: e.fields for e in records.entities.get(active.catalog.id, Side.ITEM, added)}
    names = {key.field.name for key in columns}
    values = {name: [fields.get(i, {}).get(name) for i in added] for name in names}
    longer: dict[_Key, Column] = {
        key: one.grown(len(items)) if len(one) < len(items) else one for key, one in columns.items()
    }
    return _updated(active, longer, [FieldValues(added, values)])


def _updated(
    active: Active, columns: dict[_Key, Column], pages: Iterable[FieldValues]
) -> dict[_Key, Column]:
    for page in pages:
        rows = active.served.items.rows(page.ids)
        places = np.flatnonzero(rows >= 0).tolist()
        known = rows[places]
        for key, column in columns.items():
            values = page.values[key.field.name]
            columns[key] = column.updated(known, [values[place] for place in places])
    return columns


def _changes(
    records: Records, catalog_id: str, names: Sequence[str], since: int, until: int
) -> Iterator[FieldValues]:
    revision, last_id = since, ""
    while page := records.entities.changes(
        catalog_id, Side.ITEM, since=revision, after_id=last_id, until=until, limit=_PAGE
    ):
        fields = [change.entity.fields if change.entity else {} for change in page]
        values = {name: [each.get(name) for each in fields] for name in names}
        yield FieldValues([change.id for change in page], values)
        revision, last_id = page[-1].revision, page[-1].id
