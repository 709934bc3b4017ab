"""The live index of a release, asked from a thread that has no event loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import Side
from milvine.domain.hit import Found
from milvine.domain.release import Release
from milvine.vectors import CollectionSpec, Vectors
from milvine.vectors.layout import layout

MAX_HITS = 16_384
"""What Milvus returns at most."""
_SEARCH_S = 60.0


@dataclass(frozen=True, slots=True)
class LiveItems:
    """The item collection of a release."""

    release_id: str
    vectors: Vectors
    spec: CollectionSpec
    loop: asyncio.AbstractEventLoop
    """That of `vectors`, which another thread runs."""

    def nearest(self, queries: NDArray[np.float32], limit: int) -> list[Found]:
        """The items nearest to each query, best first; blocks.

        Args:
            queries: (users, dimension).
            limit: How many of each; those over 16,384 are left out.

        Raises:
            Unavailable: The vector store does not answer.
            CollectionMissing: The release was deleted.
        """
        search = self.vectors.search(
            self.spec, queries, limit=min(limit, MAX_HITS), timeout_s=_SEARCH_S
        )
        return asyncio.run_coroutine_threadsafe(search, self.loop).result()


def live_items_of(release: Release, dimension: int, vectors: Vectors) -> LiveItems:
    """The item collection of a release that is READY, on the loop that runs.

    Args:
        release: The release.
        dimension: That of its model's vectors.
        vectors: Where it is.
    """
    spec = layout(release, Side.ITEM, dimension, dimension).scores
    return LiveItems(release.id, vectors, spec, asyncio.get_running_loop())
