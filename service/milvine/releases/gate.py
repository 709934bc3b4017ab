"""The check of a live index against exact search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from milvine.domain.hit import Found
from milvine.vectors import CollectionSpec, Vectors

SAMPLE = 256
DEPTH = 20
BLOCK = 16_384
"""Items that are scored at a time: 16 MB of scores."""
CHECK_S = 60.0


def best_scores(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The exact best scores of each query among some vectors, (queries, at most DEPTH), unordered.

    Args:
        queries: (queries, dimension).
        vectors: (any, dimension).
        rows: Which of the vectors stand in the collection.
    """
    best = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(rows), BLOCK):
        scores = queries @ vectors[rows[start : start + BLOCK]].T
        best = np.concatenate([best, scores], axis=1)
        if best.shape[1] > DEPTH:
            best = np.partition(best, -DEPTH, axis=1)[:, -DEPTH:]
    return best


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
        exact: What `best_scores` gives for them, (queries, depth).
    """
    if not exact.size:
        return 1.0
    depth = exact.shape[1]
    found = await vectors.search(spec, queries, limit=depth, timeout_s=CHECK_S)
    right = sum(_right(hits, bound) for hits, bound in zip(found, exact.min(axis=1), strict=True))
    return float(right / (len(queries) * depth))


def _right(hits: Found, bound: float) -> int:
    slack = 1e-4 * max(1.0, abs(bound))  # the store sums in another order
    return sum(score >= bound - slack for score in hits.scores)
