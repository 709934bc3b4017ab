"""The check of a live index against exact search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from milvine.domain.hit import Hit
from milvine.vectors import CollectionSpec, Vectors

SAMPLE = 256
DEPTH = 20
CHECK_S = 60.0


async def measure_recall(
    vectors: Vectors,
    spec: CollectionSpec,
    queries: NDArray[np.float32],
    exact: NDArray[np.float32],
) -> float:
    """The share of the exact best hits that the index finds; also its first warm-up.

    A hit whose score reaches the exact list's last is right, whichever of equals it is.

    Args:
        vectors: The store.
        spec: The collection.
        queries: (queries, dimension).
        exact: The vectors that stand in the collection, (rows, dimension).
    """
    depth = min(DEPTH, len(exact))
    if not len(queries) or not depth:
        return 1.0
    scores = queries @ exact.T  # (queries, rows)
    bounds = np.partition(scores, -depth, axis=1)[:, -depth]
    found = await vectors.search(spec, queries, limit=depth, timeout_s=CHECK_S)
    right = sum(_right(hits, bound) for hits, bound in zip(found, bounds, strict=True))
    return float(right / (len(queries) * depth))


def _right(hits: list[Hit], bound: float) -> int:
    slack = 1e-4 * max(1.0, abs(bound))  # the store sums in another order
    return sum(hit.score >= bound - slack for hit in hits)
