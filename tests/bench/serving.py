"""Recommend over gRPC beside pymilvus asked directly: throughput, latency, CPU and recall.

    python -m tests.bench.serving

Both answer from the same collection of the same engine, one after the other with each number of
callers. milvine is asked for users by id: it places the user, searches, drops what the user has,
and returns 20 items. First it is asked for users whom it has not met since it began, which is told
as `new_users`: it reads and encodes their histories. The figures beside pymilvus are of the same
users in turns, as they come back to a service that has run for a while. pymilvus searches the
users' vectors, which it is given, one search a call; it knows no histories. The requests of milvine
come from a generator of its own process that costs little; pymilvus's callers are coroutines of one
process, as its users write them.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymilvus import AsyncMilvusClient

from milvine.client import Client
from milvine.records import Records
from milvine.v1 import retrieval_service_pb2 as pb
from milvine.vectors.lite import LiteProcess
from tests.bench import synthetic
from tests.bench.deployment import Deployment, Engine, deployment
from tests.bench.exact import ExactRanking
from tests.bench.load import load
from tests.bench.report import console, finish, stop_cleanly_on_sigterm

CALLERS = (1, 8, 64, 256)
ITEMS = {Engine.SERVER: 50_000, Engine.LITE: 10_000}
USERS = 5_000
EVENTS_EACH_USER = 40
DIMENSION = 64
COUNT = 20
CATALOG = synthetic.SHOP.id
METHOD = "/milvine.v1.RetrievalService/Recommend"
WAIT_S = 600.0
WARM_UP_S = 0.5
ASKED = 2_000
"""How many users are asked for in turns."""
NEW_CALLERS = 64
NEW_S, SETTLE_S = 1.0, 16.0
"""How long milvine is asked for users that it has not seen, and how long until it has seen all."""


@dataclass(frozen=True, slots=True)
class World:
    """A catalog in service, who is recommended to, and what the best answers are."""

    users: list[str]
    vectors: list[list[float]]
    """The users' own, for pymilvus."""
    collection: str
    uri: str
    unseen: list[set[str]]
    """The best items of each user by exact scores, without those the user has."""
    every: list[set[str]]
    """The best items of each user by exact scores."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the two did for so many callers."""

    latencies_s: Sequence[float]
    seconds: float
    recall: float
    cpu_s: float | None = None
    """Of the processes of milvine, without the engine."""

    def figures(self) -> dict[str, float]:
        """What is reported."""
        cuts = statistics.quantiles(self.latencies_s, n=100)
        told = {
            "qps": round(len(self.latencies_s) / self.seconds, 1),
            "p50_ms": round(cuts[49] * 1_000, 3),
            "p99_ms": round(cuts[98] * 1_000, 3),
            "recall": round(self.recall, 4),
        }
        if self.cpu_s is not None:
            told["cpu_ms_per_request"] = round(self.cpu_s * 1_000 / len(self.latencies_s), 3)
        return told


async def put_into_service(deployed: Deployment, engine: Engine) -> tuple[str, str]:
    """Make a catalog, train a model and publish it; the model, and the collection of items."""
    items = ITEMS[engine]
    size = synthetic.Size(USERS, items, max(USERS * EVENTS_EACH_USER, 2 * items))
    async with Client(deployed.address, timeout_s=WAIT_S) as client:
        await client.create_catalog(CATALOG, event_types=["view", "purchase"])
        with closing(Records.open(deployed.settings.records)) as records:
            records.interactions.append(CATALOG, synthetic.interactions(size))
        settings = {"embedding_size": DIMENSION, "epochs": 3}
        training = await client.train(CATALOG, als=settings, holdout={"method": "METHOD_NONE"})
        model = await training.result()
        release = await (await client.publish(model.model_id, min_index_recall=0.0)).result()
    return model.model_id, release.collections.items


def describe(deployed: Deployment, model_id: str, collection: str, uri: str) -> World:
    """Who is asked for, with the exact answers."""
    ranking = ExactRanking.of(deployed.settings, model_id, _ids(USERS))
    known = np.flatnonzero(ranking.histories.lengths > 0)
    # In no order, for the users with the longest histories have the smallest numbers.
    known = np.random.default_rng(0).permutation(known)[:ASKED]
    asked = ranking.take(known)
    vectors = asked.served.encoder.encode(asked.histories)
    rows = np.argsort(-(vectors @ asked.served.item_vectors.T), axis=1)[:, :COUNT]
    return World(
        [_ids(USERS)[row] for row in known],
        vectors.tolist(),
        collection,
        uri,
        [set(best) for some in asked.by_score(COUNT) for best in some],
        [set(asked.served.items.take(row)) for row in rows],
    )


def ask_milvine(deployed: Deployment, world: World, callers: int, seconds: float) -> Side:
    """Recommend for the users in turns, from a process of its own."""
    requests = [_request(user) for user in world.users]
    host, port = deployed.address.split(":")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        other.submit(int).result()  # it has started
        before = cpu_s(deployed.pid)
        ran = other.submit(
            load, (host, int(port)), METHOD, requests, callers=callers, seconds=seconds
        ).result()
        taken_s = (cpu_s(deployed.pid) - before) * seconds / (seconds + WARM_UP_S)
    if ran.failures:
        raise RuntimeError(f"{ran.failures} calls failed")
    found = {
        place: [hit.item_id for hit in pb.RecommendResponse.FromString(reply).hits]
        for place, reply in ran.replies.items()
    }
    return Side(ran.latencies_s, ran.seconds, _recall(found, world.unseen), taken_s)


async def ask_pymilvus(world: World, callers: int, seconds: float) -> Side:
    """Search for the users' vectors in turns, one a call."""
    client = AsyncMilvusClient(world.uri)
    turns = itertools.cycle(range(len(world.users)))
    found: dict[int, list[str]] = {}
    latencies: list[float] = []
    counts_from = time.perf_counter() + WARM_UP_S
    end = counts_from + seconds

    async def call() -> None:
        while (began := time.perf_counter()) < end:
            place = next(turns)
            (hits,) = await client.search(
                world.collection, [world.vectors[place]], limit=COUNT, timeout=30
            )
            if began >= counts_from:
                latencies.append(time.perf_counter() - began)
                found[place] = [hit["id"] for hit in hits]

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(call())
    finally:
        await client.close()
    return Side(latencies, seconds, _recall(found, world.every))


async def measure(
    engine: Engine, callers: Sequence[int], seconds: float, processes: int
) -> dict[str, object]:
    """Both, with each number of callers."""
    with (
        tempfile.TemporaryDirectory() as home,
        deployment(Path(home), engine, processes=processes) as deployed,
    ):
        console.print(f"{engine}: putting {ITEMS[engine]:,} items into service")
        model_id, collection = await put_into_service(deployed, engine)
        with _uri(deployed) as uri:
            world = describe(deployed, model_id, collection, uri)
            new = ask_milvine(deployed, world, NEW_CALLERS, NEW_S).figures()
            ask_milvine(deployed, world, NEW_CALLERS, SETTLE_S)
            told: dict[str, object] = {"new_users": new}
            console.print(f"{engine}, {NEW_CALLERS} callers, new users: {new}")
            for count in callers:
                mine = ask_milvine(deployed, world, count, seconds).figures()
                theirs = (await ask_pymilvus(world, count, seconds)).figures()
                told[str(count)] = {
                    "milvine": mine,
                    "pymilvus": theirs,
                    "qps_ratio": round(mine["qps"] / theirs["qps"], 3),
                    "p50_ratio": round(mine["p50_ms"] / theirs["p50_ms"], 3),
                }
                console.print(f"{engine}, {count} callers: {told[str(count)]}")
    return told


@contextmanager
def _uri(deployed: Deployment) -> Iterator[str]:
    """Where the engine answers: a server's address, or the socket of the embedded one."""
    file = deployed.settings.lite_file
    if file is None:
        yield deployed.settings.vectors_uri
        return
    with closing(LiteProcess.attach_or_open(file)) as lite:
        yield lite.uri


def _request(user: str) -> bytes:
    request = pb.RecommendRequest(catalog_id=CATALOG, page_size=COUNT)
    request.subject.user_id = user
    return request.SerializeToString()


def _recall(found: Mapping[int, Sequence[str]], best: Sequence[set[str]]) -> float:
    return statistics.fmean(
        len(best[place].intersection(ids)) / len(best[place]) for place, ids in found.items()
    )


def _ids(count: int) -> list[str]:
    return [f"user-{row:07}" for row in range(count)]


def cpu_s(pid: int) -> float:
    """The CPU time of a server, in user and system mode, with that of its members."""
    return sum(_cpu_s(one) for one in [pid, *_members(pid)])


def _cpu_s(pid: int) -> float:
    fields = _stat(Path(f"/proc/{pid}"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _members(pid: int) -> list[int]:
    """The server processes of a supervisor; none of a server."""
    members = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may have ended by now
            if b"--member" in (place / "cmdline").read_bytes() and int(_stat(place)[1]) == pid:
                members.append(int(place.name))
    return members


def _stat(place: Path) -> list[str]:
    """What the system tells of a process, from its state on."""
    return (place / "stat").read_text().rsplit(")", 1)[1].split()


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-serving", description=__doc__)
    parser.add_argument("--engine", type=Engine, choices=list(Engine), action="append")
    parser.add_argument("--callers", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    stop_cleanly_on_sigterm()
    engines = arguments.engine or [Engine.SERVER, Engine.LITE]
    callers = arguments.callers or CALLERS
    seconds, processes = arguments.seconds, arguments.processes
    finish(
        {engine: asyncio.run(measure(engine, callers, seconds, processes)) for engine in engines}
    )


if __name__ == "__main__":
    main()
