"""Items that a caller names, as rows of a release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milvine.domain.hit import Hit
from milvine.models.vocabulary import Vocabulary
from milvine.retrieval.search import Search

_AT_ONCE = 1_000
"""Ids of a look-up: 10,000 in one take more than twice the time of ten times 1,000."""


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """What a release has of some items."""

    rows: NDArray[np.int32]
    """(n,): the rows of those that it has, each once, in the order asked for."""
    missing: tuple[str, ...]
    """The others, in the order asked for."""


async def look_up(search: Search, items: Vocabulary, ids: Sequence[str]) -> Named:
    """Which of some items a release has: its model knows them, and nobody deleted them since."""
    distinct = list(dict.fromkeys(ids))
    rows = items.rows(distinct)
    known = [id_ for id_, row in zip(distinct, rows.tolist(), strict=True) if row >= 0]
    there: set[str] = set()
    for start in range(0, len(known), _AT_ONCE):
        there |= await search.matching(known[start : start + _AT_ONCE])
    return Named(
        rows[[id_ in there for id_ in distinct]],
        tuple(id_ for id_ in distinct if id_ not in there),
    )


def in_order(items: Vocabulary, rows: NDArray[np.int32], scores: NDArray[np.floating]) -> list[Hit]:
    """Rows as hits, best first; of equals, the one with the smaller row."""
    order = np.lexsort((rows, -scores))
    ids = items.take(rows[order])
    return [Hit(id_, score) for id_, score in zip(ids, scores[order].tolist(), strict=True)]
