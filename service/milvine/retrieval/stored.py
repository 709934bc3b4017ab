"""What the vector store alone knows of hits: the fields to return, and the vectors of users."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milvine.domain.catalog import Field
from milvine.domain.hit import Found, Hit
from milvine.retrieval.matching import EVERYTHING
from milvine.vectors import CollectionSpec, Vectors

FEW_USERS = 5_000
"""Up to so many users that match are scored one and all, whatever an index would find."""
_FETCH = 4_096
"""Users whose vectors are held at a time."""


async def with_fields(
    vectors: Vectors,
    spec: CollectionSpec,
    fields: Sequence[Field],
    lists: Sequence[list[Hit]],
    *,
    ends: float,
) -> list[list[Hit]]:
    """Lists of hits with some fields, fetched for those that have none, until `ends`, monotonic."""
    if not fields:
        return list(lists)
    missing = {hit.id for hits in lists for hit in hits if not hit.fields}
    if not missing:
        return list(lists)
    rows = await vectors.fetch(
        spec, sorted(missing), fields=fields, timeout_s=ends - time.monotonic()
    )
    found = {row.id: row.fields for row in rows}
    return [[hit._replace(fields=found.get(hit.id, hit.fields)) for hit in hits] for hits in lists]


async def scored_users(
    vectors: Vectors,
    spec: CollectionSpec,
    expression: str,
    query: NDArray[np.float32],
    *,
    ends: float,
) -> Found:
    """All rows that match with their inner products, best first, until `ends`, monotonic."""
    ids = await vectors.match(
        spec, expression=expression, limit=EVERYTHING, timeout_s=ends - time.monotonic()
    )
    found: list[tuple[str, float]] = []
    for start in range(0, len(ids), _FETCH):
        rows = await vectors.fetch(
            spec,
            ids[start : start + _FETCH],
            with_vector=True,
            timeout_s=ends - time.monotonic(),
        )
        found += [(row.id, float(row.vector @ query)) for row in rows if row.vector is not None]
    found.sort(key=lambda one: (-one[1], one[0]))
    return Found([id_ for id_, _ in found], [score for _, score in found])
