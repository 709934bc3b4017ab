"""Vocabularies: external ids and the rows that stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_FEW = 4_096
"""Up to so many ids, a dictionary that is built once finds them faster than Arrow's look-up."""


class Vocabulary:
    """Ids in a fixed order; the row of an id is its place."""

    def __init__(
        self, ids: pa.Array | Sequence[str], *, beginning: Vocabulary | None = None
    ) -> None:
        """The vocabulary of ids, the first of which may be another vocabulary's."""
        self.ids: pa.StringArray = ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string())
        self._beginning = beginning

    @classmethod
    def of(cls, ids: pa.ChunkedArray) -> Vocabulary:
        """The vocabulary of the distinct ids, in the order of their bytes."""
        distinct = pc.unique(ids)
        return cls(distinct.take(pc.array_sort_indices(distinct)))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fixed(self) -> int:
        """How many leading rows never change; those of `and_more` differ between processes."""
        return len(self) if self._beginning is None else len(self._beginning)

    def and_more(self, ids: Sequence[str]) -> Vocabulary:
        """These ids, whose rows stay, and then others."""
        first = self._beginning or self
        every = pa.concat_arrays([self.ids, pa.array(ids, pa.string())])
        return Vocabulary(every, beginning=first)

    def rows(self, ids: pa.Array | pa.ChunkedArray | Sequence[str]) -> NDArray[np.int32]:
        """The rows of ids; -1 for an id that is not in the vocabulary."""
        if len(ids) <= _FEW:
            texts = ids.to_pylist() if isinstance(ids, (pa.Array, pa.ChunkedArray)) else ids
            rows = np.array([self._rows.get(text, -1) for text in texts], np.int32)
            if self._beginning is None:
                return rows
            return np.maximum(rows, self._beginning.rows(texts))
        found = pc.index_in(ids, value_set=self.ids)
        return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int32)

    def take(self, rows: NDArray[np.integer]) -> list[str]:
        """The ids of rows."""
        ids: list[str] = self.ids.take(pa.array(rows)).to_pylist()
        return ids

    @cached_property
    def _rows(self) -> dict[str, int]:
        """The rows of the ids that are no other vocabulary's."""
        start = 0 if self._beginning is None else self.fixed
        return {text: row for row, text in enumerate(self.ids[start:].to_pylist(), start)}
