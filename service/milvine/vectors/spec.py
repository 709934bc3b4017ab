"""What a collection of vectors looks like, and a row of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milvine.domain.catalog import Field, VectorIndex
from milvine.domain.entity import FieldValue


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """The shape of a collection: vectors of one dimension with typed metadata, by id."""

    name: str
    dimension: int
    fields: tuple[Field, ...]
    index: VectorIndex

    def __hash__(self) -> int:
        return hash(self.name)  # a spec is a key at each search, and the names differ


@dataclass(frozen=True, slots=True)
class Row:
    """A stored row. A field without a value is not in `fields`."""

    id: str
    fields: Mapping[str, FieldValue]
    vector: NDArray[np.float32] | None = None
    """(dimension,) float32 where it was asked for."""
