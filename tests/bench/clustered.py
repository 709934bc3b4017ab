"""Items that lie in clusters, some far longer than others, in service without training.

The inner product of such vectors is what graph indexes find hardest, and what catalogs are like.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from milvine.artifacts import Artifacts
from milvine.client import Client
from milvine.domain.catalog import Catalog, EventType, Field, FieldType
from milvine.domain.entity import Entity, Side
from milvine.records import Records
from milvine.v1 import retrieval_service_pb2 as pb
from tests.bench.deployment import Deployment
from tests.made_model import store_model

SHOP = Catalog(
    id="shop", event_types=(EventType("view"),), item_fields=(Field("place", FieldType.INT64),)
)
DIMENSION = 64
COUNT = 20
CLUSTERS = 200
_METHOD = "/milvine.v1.RetrievalService/Recommend"
_WAIT_S = 900.0
_MESSAGE = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Items in service, and tastes to ask for."""

    ids: list[str]
    vectors: NDArray[np.float32]
    """(items, dimension)"""
    places: NDArray[np.int64]
    """(items,): the field `place`, the numbers from 0 on in no order."""
    queries: NDArray[np.float32]
    """(queries, dimension)"""

    @classmethod
    def create(cls, items: int, queries: int) -> World:
        """The same each time."""
        rng = np.random.default_rng(0)
        centers = rng.normal(size=(CLUSTERS, DIMENSION))

        def near(count: int) -> NDArray[np.float64]:
            noise = 0.5 * rng.normal(size=(count, DIMENSION))
            points = centers[rng.integers(0, CLUSTERS, count)] + noise
            unit: NDArray[np.float64] = points / np.linalg.norm(points, axis=1, keepdims=True)
            return unit

        lengths = rng.lognormal(0.0, 0.25, (items, 1))
        return cls(
            [f"item-{row:07}" for row in range(items)],
            (near(items) * lengths).astype(np.float32),
            rng.permutation(items),
            near(queries).astype(np.float32),
        )

    def best(
        self, query: NDArray[np.float32], allowed: NDArray[np.bool_], count: int = COUNT
    ) -> list[str]:
        """The best of the allowed items, (items,), by brute force."""
        scores = np.where(allowed, self.vectors @ query, -np.inf)
        order = np.argsort(-scores)[: min(count, int(allowed.sum()))]
        return [self.ids[row] for row in order]


async def put_into_service(deployed: Deployment, world: World) -> str:
    """Write the items and their model, and publish it; the collection of the items."""
    settings = deployed.settings
    with closing(Records.open(settings.records)) as records:
        records.catalogs.create(SHOP)
        entities = [
            Entity(id_, {"place": place})
            for id_, place in zip(world.ids, world.places.tolist(), strict=True)
        ]
        records.entities.upsert(SHOP.id, Side.ITEM, entities)
        artifacts = Artifacts(settings.artifacts)
        model = store_model(records, artifacts, SHOP.id, world.ids, world.vectors)
    async with Client(deployed.address, timeout_s=_WAIT_S) as client:
        release = await (await client.publish(model.id, min_index_recall=0.0)).result()
    return release.collections.items


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking one after the other."""

    latencies_s: list[float]
    found: list[list[str]]
    """The hits of each question's last answer."""

    def figures(self, best: Sequence[Sequence[str]]) -> dict[str, float]:
        """What is reported, beside the best answers; a list is short that could be longer."""
        cuts = statistics.quantiles(self.latencies_s, n=100)
        pairs = list(zip(self.found, best, strict=True))
        recall = statistics.fmean(
            len(set(hits) & set(exact)) / len(exact) if exact else 1.0 for hits, exact in pairs
        )
        return {
            "recall": round(recall, 4),
            "short": round(statistics.fmean(len(hits) < len(exact) for hits, exact in pairs), 4),
            "p50_ms": round(cuts[49] * 1_000, 3),
            "p99_ms": round(cuts[98] * 1_000, 3),
        }


async def ask_in_turns(
    questions: int, ask: Callable[[int], Awaitable[list[str]]], *, seconds: float
) -> Asked:
    """Ask each question once without a clock, then in turns for so many seconds."""
    found = [await ask(place) for place in range(questions)]
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(latencies) < 2:
        place = len(latencies) % questions
        began = time.perf_counter()
        found[place] = await ask(place)
        latencies.append(time.perf_counter() - began)
    return Asked(latencies, found)


async def ask_milvine(
    address: str, requests: Sequence[pb.RecommendRequest], *, seconds: float
) -> Asked:
    """Recommend over gRPC, one call at a time; the messages are made before the clock starts."""
    messages = [request.SerializeToString() for request in requests]
    async with grpc.aio.insecure_channel(address, options=_MESSAGE) as channel:
        call = channel.unary_unary(_METHOD)

        async def ask(place: int) -> list[str]:
            reply = pb.RecommendResponse.FromString(await call(messages[place], timeout=60))
            return [hit.item_id for hit in reply.hits]

        return await ask_in_turns(len(messages), ask, seconds=seconds)


def request_for(query: NDArray[np.float32]) -> pb.RecommendRequest:
    """Asks for the best items for a point of the space."""
    request = pb.RecommendRequest(catalog_id=SHOP.id, page_size=COUNT)
    request.subject.vector.values.extend(query.tolist())
    return request


async def settle(address: str, queries: NDArray[np.float32]) -> None:
    """Let server and store warm up."""
    requests = [request_for(query) for query in queries[:20]]
    await ask_milvine(address, requests, seconds=1.0)
    await asyncio.sleep(1.0)
