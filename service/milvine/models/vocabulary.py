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

    def __init__(self, ids: pa.Array | Sequence[str]) -> None:
        self.ids: pa.StringArray = ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string())
        self.fixed = len(self.ids)
        """How many leading rows mean the same in every process: of items, those that the model
        learned. Those after them came later."""

    @classmethod
    def of(cls, ids: pa.ChunkedArray) -> Vocabulary:
        """The vocabulary of the distinct ids, in the order of their bytes."""
        distinct = pc.unique(ids)
        return cls(distinct.take(pc.array_sort_indices(distinct)))

    def __len__(self) -> int:
        return len(self.ids)

    def extended(self, ids: Sequence[str]) -> Vocabulary:
        """The vocabulary with more ids after its own."""
        longer = Vocabulary(pa.concat_arrays([self.ids, pa.array(ids, pa.string())]))
        longer.fixed = self.fixed
        return longer

    def rows(self, ids: pa.Array | pa.ChunkedArray | Sequence[str]) -> NDArray[np.int32]:
        """The rows of ids; -1 for an id that is not in the vocabulary."""
        if len(ids) <= _FEW:
            known = self._rows
            texts = ids.to_pylist() if isinstance(ids, (pa.Array, pa.ChunkedArray)) else ids
            return np.array([known.get(text, -1) for text in texts], np.int32)
        found = pc.index_in(ids, value_set=self.ids)
        return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int32)

    def take(self, rows: NDArray[np.integer]) -> list[str]:
        """The ids of rows."""
        ids: list[str] = self.ids.take(pa.array(rows)).to_pylist()
        return ids

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.ids.to_pylist())}
