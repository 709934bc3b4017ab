"""How the vectors of a release lie in collections.

A side (items, users) has two collections with the same ids and metadata. One holds the vectors
whose inner product is the score. The other, the neighbours, holds the directions of their tastes,
so that the inner product there is the cosine: a server of 2023 has one vector field a collection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from milvine.domain.catalog import IndexKind
from milvine.domain.entity import Side
from milvine.domain.release import Release, TextIndex
from milvine.vectors.spec import CollectionSpec


@dataclass(frozen=True, slots=True)
class Layout:
    """The two collections of one side of a release."""

    scores: CollectionSpec
    neighbours: CollectionSpec

    @property
    def specs(self) -> tuple[CollectionSpec, CollectionSpec]:
        """Both collections."""
        return (self.scores, self.neighbours)

    def split(self, vectors: np.ndarray) -> tuple[tuple[CollectionSpec, np.ndarray], ...]:
        """What each collection holds of vectors, (n, dimension) float32."""
        taste = directions(vectors, self.neighbours.dimension)
        return ((self.scores, vectors), (self.neighbours, taste))


def layout(release: Release, side: Side, dimension: int, taste_dimension: int) -> Layout:
    """The collections of a side of a release, by the dimensions of its model."""
    names = (release.collection(side), release.neighbour_collection(side))
    scores, neighbours = (
        CollectionSpec(name, size, release.fields(side), release.vector_index)
        for name, size in zip(names, (dimension, taste_dimension), strict=True)
    )
    return Layout(scores, neighbours)


def text_spec(release: Release, text: TextIndex) -> CollectionSpec:
    """The collection of what the items of a release say; the index is exact, filter or not.

    A graph loses results under a filter, and what makes up for that with other collections, scores
    in memory, would need all text vectors there.
    """
    index = replace(release.vector_index, kind=IndexKind.FLAT)
    return CollectionSpec(release.text_collection, text.dimension, release.item_fields, index)


def directions(vectors: np.ndarray, taste_dimension: int) -> np.ndarray:
    """The tastes of vectors, (n, d) float32 to (n, taste_dimension) of length 1, or 0 for none."""
    tastes = vectors[:, :taste_dimension]
    lengths = np.linalg.norm(tastes, axis=1, keepdims=True)
    unit: np.ndarray = tastes / np.maximum(lengths, np.float32(1e-12))
    return unit
