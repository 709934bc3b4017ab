"""Searches of the vector store: like ones of many requests are one call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milvine.domain.catalog import Field
from milvine.domain.hit import Found
from milvine.retrieval.batches import Batches
from milvine.vectors import CollectionSpec, Vectors

SLOTS = 4
"""Searches under way; of one kind that is one, or two where many wait."""
MOST_QUERIES = 128
"""Where more queries in a search gain nothing."""


@dataclass(frozen=True, slots=True)
class Ask:
    """How a collection is searched; searches that agree in it can be one."""

    spec: CollectionSpec
    limit: int
    expression: str
    fields: tuple[Field, ...]

    def __hash__(self) -> int:
        """Without the many parts of a specification: a name stands for one."""
        return hash((self.spec.name, self.limit, self.expression))


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    vector: NDArray[np.float32]
    """(dimension,)"""
    ends: float


class Index:
    """The collections of a vector store, searched for many callers at once."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._batches: Batches[Ask, _Query, Found] = Batches(
            self._search, slots=SLOTS, most=MOST_QUERIES
        )

    async def search(
        self, lane: str, ask: Ask, queries: Sequence[NDArray[np.float32]], *, timeout_s: float
    ) -> Sequence[Found]:
        """The nearest rows to each query, (dimension,), best first."""
        ends = time.monotonic() + timeout_s
        return await self._batches.answers(lane, ask, [_Query(query, ends) for query in queries])

    async def _search(self, ask: Ask, queries: Sequence[_Query]) -> Sequence[Found]:
        return await self._vectors.search(
            ask.spec,
            np.stack([query.vector for query in queries]),
            limit=ask.limit,
            expression=ask.expression,
            fields=ask.fields,
            timeout_s=max(query.ends for query in queries) - time.monotonic(),
        )
