"""The collections of a release by name."""

from __future__ import annotations

from milvine.domain.entity import Side
from milvine.domain.release import Release
from milvine.vectors import Vectors


def collections(release: Release, *sides: Side) -> list[str]:
    """The names of a release's collections, of both sides unless some are named."""
    return [
        name
        for side in sides or Side
        for name in (release.collection(side), release.neighbour_collection(side))
    ]


async def drop_collections(vectors: Vectors, release: Release, *, timeout_s: float) -> None:
    """Drop what there is of a release's collections."""
    for name in collections(release):
        await vectors.drop(name, timeout_s=timeout_s)
