"""Recommend under filters that few or many items match, beside Milvus with the same filter.

    python -m tests.bench.filters

Both answer from the same collection with an HNSW index on the real server, one call at a time:
milvine over gRPC, for the vector of a taste; Milvus through pymilvus's asyncio client. Recall is
against exact scoring; an answer is short that has fewer hits than match. Items change now and then
in a real shop, and then a filter is looked up anew: `cold_ms` is the first answer to a new filter.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymilvus import AsyncMilvusClient

from tests.bench.clustered import (
    COUNT,
    Asked,
    World,
    ask_in_turns,
    ask_milvine,
    put_into_service,
    request_for,
    settle,
)
from tests.bench.deployment import Deployment, Engine, deployment
from tests.bench.report import console, finish, stop_cleanly_on_sigterm

SHARES = (1.0, 0.5, 0.05, 0.01, 0.005, 0.001, 0.0002)
ITEMS = 50_000
QUERIES = 200


async def measure(items: int, shares: Sequence[float], seconds: float) -> dict[str, object]:
    """Both, at each share."""
    world = World.create(items, QUERIES)
    with (
        tempfile.TemporaryDirectory() as home,
        deployment(Path(home), Engine.SERVER) as deployed,
    ):
        console.print(f"putting {items:,} items into service")
        collection = await put_into_service(deployed, world)
        await settle(deployed.address, world.queries)
        told: dict[str, object] = {}
        for share in shares:
            told[f"{share:g}"] = await _at(deployed, world, collection, share, seconds)
            console.print(f"{share:7.2%} match: {told[f'{share:g}']}")
    return told


async def _at(
    deployed: Deployment, world: World, collection: str, share: float, seconds: float
) -> dict[str, dict[str, float]]:
    text = f"place < {round(share * len(world.ids))}"
    allowed = world.places < round(share * len(world.ids))
    best = [world.best(query, allowed) for query in world.queries]
    requests = [request_for(query) for query in world.queries]
    for request in requests:
        request.filter = text
    began = time.perf_counter()
    await ask_milvine(deployed.address, requests[:1], seconds=0.0)
    cold_s = time.perf_counter() - began
    mine = await ask_milvine(deployed.address, requests, seconds=seconds)
    uri = deployed.settings.vectors_uri
    theirs = await _ask_raw(uri, collection, world.queries, text, seconds)
    return {
        "milvine": mine.figures(best) | {"cold_ms": round(cold_s * 1_000, 1)},
        "raw": theirs.figures(best),
    }


async def _ask_raw(
    uri: str, collection: str, queries: NDArray[np.float32], text: str, seconds: float
) -> Asked:
    client = AsyncMilvusClient(uri)
    vectors = queries.tolist()

    async def ask(place: int) -> list[str]:
        (hits,) = await client.search(
            collection, [vectors[place]], filter=text, limit=COUNT, timeout=60
        )
        return [hit["id"] for hit in hits]

    try:
        return await ask_in_turns(len(vectors), ask, seconds=seconds)
    finally:
        await client.close()


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-filters", description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--share", type=float, action="append")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    stop_cleanly_on_sigterm()
    shares = arguments.share or SHARES
    finish(asyncio.run(measure(arguments.items, shares, arguments.seconds)))


if __name__ == "__main__":
    main()
