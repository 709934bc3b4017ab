"""Recommend without long lists of seen items, beside Milvus with `id not in [...]`.

    python -m tests.bench.exclude

The same items are left out in three ways, one call at a time: milvine is told them in the request
(`excluded`), milvine knows them as the history of a user (`history`), and the real server gets them
in its expression (`raw`), through pymilvus's asyncio client. Half of a list are the best items of
whoever asks, as what was recommended before is; the other half are any. Recall is against exact
scoring.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pymilvus import AsyncMilvusClient

from milvine.domain.interaction import INTERACTIONS
from milvine.records import Records
from milvine.v1 import retrieval_service_pb2 as pb
from tests.bench.clustered import (
    COUNT,
    SHOP,
    Asked,
    World,
    ask_in_turns,
    ask_milvine,
    put_into_service,
    request_for,
    settle,
)
from tests.bench.deployment import Deployment, Engine, deployment
from tests.bench.exact import ExactRanking
from tests.bench.report import console, finish, stop_cleanly_on_sigterm

LENGTHS = (10, 100, 1_000, 10_000, 100_000)
ITEMS = 200_000
QUERIES = 20
"""Whose lists differ; a list of 100,000 ids takes a request of 1.4 MB."""
READERS = 4
"""How many of them have their lists as histories: the service remembers histories for seconds, and
the first read of a long one, before the clock starts, takes longer than that for many."""
RAW_S = 600.0


@dataclass(frozen=True, slots=True)
class Service:
    """What answers."""

    deployed: Deployment
    world: World
    model_id: str
    collection: str


async def measure(items: int, lengths: Sequence[int], seconds: float) -> dict[str, object]:
    """All three, at each length."""
    world = World.create(items, QUERIES)
    with (
        tempfile.TemporaryDirectory() as home,
        deployment(Path(home), Engine.SERVER) as deployed,
    ):
        console.print(f"putting {items:,} items into service")
        collection = await put_into_service(deployed, world)
        model_id = _model_of(deployed)
        await settle(deployed.address, world.queries)
        service = Service(deployed, world, model_id, collection)
        told: dict[str, object] = {}
        for length in lengths:
            told[str(length)] = await _at(service, length, seconds)
            console.print(f"{length:,} excluded: {told[str(length)]}")
    return told


async def _at(service: Service, length: int, seconds: float) -> dict[str, dict[str, float]]:
    world, address = service.world, service.deployed.address
    lists = [_seen(world, query, length) for query in world.queries]
    best = []
    for query, rows in zip(world.queries, lists, strict=True):
        allowed = np.ones(len(world.ids), bool)
        allowed[rows] = False
        best.append(world.best(query, allowed))
    ids = [[world.ids[row] for row in rows] for rows in lists]
    requests = [request_for(query) for query in world.queries]
    for request, some in zip(requests, ids, strict=True):
        request.exclude_item_ids.extend(some)
    excluded = await ask_milvine(address, requests, seconds=seconds)
    users = [f"{length}-{place}" for place in range(READERS)]
    known = _record(service, users, ids[:READERS])
    history = await ask_milvine(address, [_for_user(user) for user in users], seconds=seconds)
    raw = await _ask_raw(service, ids, seconds)
    return {
        "excluded": excluded.figures(best),
        "history": history.figures(known),
        "raw": raw.figures(best),
    }


def _seen(world: World, query: NDArray[np.float32], length: int) -> NDArray[np.int64]:
    """The rows of a list: half the best for a query, half any others."""
    rng = np.random.default_rng(length)
    order = np.argsort(-(world.vectors @ query))
    half = length // 2
    return np.concatenate([order[:half], rng.permutation(order[half:])[: length - half]])


def _record(
    service: Service, users: Sequence[str], lists: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Give users their histories; what is best for each without these, by exact scores."""
    counts = [len(some) for some in lists]
    total = sum(counts)
    columns = {
        "event_id": pa.nulls(total, pa.string()),
        "user_id": pa.array(np.repeat(users, counts)),
        "item_id": pa.array([id_ for some in lists for id_ in some]),
        "event_type": pa.array(["view"] * total),
        "value": pa.nulls(total, pa.float64()),
        "event_time": pa.array(range(total), pa.int64()),
    }
    settings = service.deployed.settings
    with closing(Records.open(settings.records)) as records:
        records.interactions.append(SHOP.id, pa.table(columns, schema=INTERACTIONS))
    ranking = ExactRanking.of(settings, service.model_id, users)
    return [best for some in ranking.by_score(COUNT) for best in some]


def _for_user(user: str) -> pb.RecommendRequest:
    request = pb.RecommendRequest(catalog_id=SHOP.id, page_size=COUNT)
    request.subject.user_id = user
    return request


def _model_of(deployed: Deployment) -> str:
    with closing(Records.open(deployed.settings.records)) as records:
        active = records.catalogs.get(SHOP.id).active_release_id
        return records.releases.get(active or "").model_id


async def _ask_raw(service: Service, lists: Sequence[Sequence[str]], seconds: float) -> Asked:
    client = AsyncMilvusClient(service.deployed.settings.vectors_uri)
    vectors = service.world.queries.tolist()
    filters = [f"id not in {json.dumps(some)}" for some in lists]

    async def ask(place: int) -> list[str]:
        (hits,) = await client.search(
            service.collection, [vectors[place]], filter=filters[place], limit=COUNT, timeout=RAW_S
        )
        return [hit["id"] for hit in hits]

    try:
        return await ask_in_turns(len(vectors), ask, seconds=seconds)
    finally:
        await client.close()


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-exclude", description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--length", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    stop_cleanly_on_sigterm()
    lengths = arguments.length or LENGTHS
    finish(asyncio.run(measure(arguments.items, lengths, arguments.seconds)))


if __name__ == "__main__":
    main()
