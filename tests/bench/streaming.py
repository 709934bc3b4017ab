"""Recommend while interactions and items stream in, beside Recommend when nothing does.

    python -m tests.bench.streaming

A thousand rows a second come in: 500 interactions in one stream, ten at a time, and 500 updates of
items in calls of fifty. Eight callers ask for recommendations, each at a modest pace, from a
process of their own; what is compared is their latency without all that and with it. Meanwhile
another one records that a user had the best item of a recommendation, and asks again with STRONG
consistency: as the item is seen then, it must be gone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from milvine.client import Client, Interaction, Item, RpcError
from milvine.domain.entity import Side
from milvine.records import Records
from tests.bench import serving, synthetic
from tests.bench.deployment import Deployment, Engine, deployment
from tests.bench.report import console, finish, stop_cleanly_on_sigterm

T = TypeVar("T")
CATALOG = serving.CATALOG
ITEMS = {Engine.LITE: 10_000, Engine.SERVER: 20_000}
SECONDS = 20.0
SETTLE_S = 3.0
"""How long the stream is on before it counts."""
CALLERS = 8
CALLS_A_SECOND = 5.0
"""Of each caller."""
ROWS_A_SECOND = 1_000
EVENTS = 10
"""Interactions of a message."""
UPDATES = 50
"""Items of a call."""
USERS = 2_000
"""Whom the callers ask for. Checks are of others, as nobody else may change what they have seen."""
CHECKED = 500


@dataclass(slots=True)
class Checks:
    """Whether what was acknowledged was reflected."""

    made: int = 0
    missed: int = 0


def _user(row: int) -> str:
    return f"user-{row:07}"


def _item(row: int) -> str:
    return f"item-{row:07}"


async def every(period_s: float, until: float, act: Callable[[], Awaitable[None]]) -> int:
    """Act at a pace, without waiting for what was late; how often."""
    count, due = 0, time.perf_counter()
    while (now := time.perf_counter()) < until:
        if now < due:
            await asyncio.sleep(due - now)
        due = max(due + period_s, time.perf_counter() - period_s)
        await act()
        count += 1
    return count


async def ask(address: str, seconds: float) -> list[float]:
    """The latencies of the callers' recommendations."""
    users = itertools.cycle(np.random.default_rng(1).permutation(USERS).tolist())
    latencies: list[float] = []
    async with Client(address) as client:

        async def recommend() -> None:
            began = time.perf_counter()
            await client.recommend(CATALOG, user=_user(next(users)), page_size=20)
            latencies.append(time.perf_counter() - began)

        async def call(number: int) -> None:
            await asyncio.sleep(number / CALLERS / CALLS_A_SECOND)
            await every(1 / CALLS_A_SECOND, time.perf_counter() + seconds, recommend)

        await asyncio.gather(*map(call, range(CALLERS)))
    return latencies


async def check(address: str, seconds: float) -> Checks:
    """Record an interaction with the best item, and look whether it is gone."""
    checks = Checks()
    users = itertools.cycle(range(USERS, USERS + CHECKED))
    async with Client(address) as client:

        async def once() -> None:
            user = _user(next(users))
            found = await client.recommend(CATALOG, user=user, strong=True)
            best = found.hits[0].id
            await client.record(CATALOG, [Interaction(user, best, "view")])
            again = await client.recommend(CATALOG, user=user, strong=True)
            checks.made += 1
            checks.missed += best in {hit.id for hit in again.hits}

        await every(0.2, time.perf_counter() + seconds, once)
    return checks


async def events(items: int, until: float) -> AsyncIterator[Interaction]:
    """Yield interactions at the pace, some at a time."""
    draw = random.Random(2)  # noqa: S311 - the same in each run
    due = time.perf_counter()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        for _ in range(EVENTS):
            user, item = _user(draw.randrange(USERS)), _item(draw.randrange(items))
            yield Interaction(user, item, "view")
        due += EVENTS / (ROWS_A_SECOND / 2)


async def write(address: str, seconds: float, items: int) -> dict[str, float]:
    """Record interactions and update items at the pace; how many of each a second."""
    draw = random.Random(3)  # noqa: S311 - the same
    async with Client(address) as client:

        async def upsert() -> None:
            rows = [
                Item(_item(row), {"year": draw.randrange(1950, 2027), "title": f"Number {row}"})
                for row in draw.sample(range(items), UPDATES)
            ]
            await client.upsert_items(CATALOG, rows)

        async def record() -> int:
            source = events(items, end)
            acks = client.stream_interactions(CATALOG, source, batch_size=EVENTS)
            return sum([ack.written + ack.duplicates async for ack in acks])

        began = time.perf_counter()
        end = began + seconds
        recorded, calls = await asyncio.gather(
            record(), every(UPDATES / (ROWS_A_SECOND / 2), end, upsert)
        )
    taken = time.perf_counter() - began
    return {
        "interactions_per_s": round(recorded / taken, 1),
        "items_per_s": round(calls * UPDATES / taken, 1),
    }


def run(work: Coroutine[None, None, T]) -> T:
    """Do work on a loop of this process; an error of a call does not travel to another one."""
    try:
        return asyncio.run(work)
    except (RpcError, ExceptionGroup) as error:
        raise RuntimeError(str(error)) from None


def run_ask(address: str, seconds: float) -> list[float]:
    """Ask, in a process of its own."""
    return run(ask(address, seconds))


def run_write(address: str, seconds: float, items: int) -> dict[str, float]:
    """Write, in a process of its own."""
    return run(write(address, seconds, items))


def run_check(address: str, seconds: float) -> Checks:
    """Check, in a process of its own."""
    return run(check(address, seconds))


def measure(engine: Engine, seconds: float) -> dict[str, object]:
    """Without the stream, then with it."""
    items = ITEMS[engine]
    with tempfile.TemporaryDirectory() as home, deployment(Path(home), engine) as deployed:
        console.print(f"{engine}: putting {items:,} items into service")
        asyncio.run(put_into_service(deployed, items))
        with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as others:
            list(others.map(int, range(3)))
            others.submit(run_ask, deployed.address, SETTLE_S).result()
            quiet = others.submit(run_ask, deployed.address, seconds).result()
            console.print(f"{engine}: quiet: {figures(quiet)}")
            writing = others.submit(run_write, deployed.address, seconds + 2 * SETTLE_S, items)
            checking = others.submit(run_check, deployed.address, seconds + SETTLE_S)
            time.sleep(SETTLE_S)
            streaming = others.submit(run_ask, deployed.address, seconds).result()
            written, checks = writing.result(), checking.result()
    calm, busy = figures(quiet), figures(streaming)
    return {
        "quiet": calm,
        "streaming": busy,
        "p99_ratio": round(busy["p99"] / calm["p99"], 2),
        "strong_checked": checks.made,
        "strong_missed": checks.missed,
        **written,
    }


def figures(latencies_s: Sequence[float]) -> dict[str, float]:
    """What is reported of calls: milliseconds."""
    cuts = statistics.quantiles(latencies_s, n=100)
    shown = {f"p{n}": round(cuts[n - 1] * 1_000, 2) for n in (50, 90, 99)}
    return {"calls": len(latencies_s), **shown}


async def put_into_service(deployed: Deployment, items: int) -> None:
    """Write items and interactions, train and publish."""
    size = synthetic.Size(USERS + CHECKED, items, 40 * USERS)
    async with Client(deployed.address, timeout_s=serving.WAIT_S) as client:
        fields = {"title": "STRING", "year": "INT64", "genres": "STRING_LIST"}
        await client.create_catalog(CATALOG, event_types=["view", "purchase"], item_fields=fields)
        with closing(Records.open(deployed.settings.records)) as records:
            records.entities.upsert(CATALOG, Side.ITEM, synthetic.items(items))
            records.interactions.append(CATALOG, synthetic.interactions(size))
        settings = {"embedding_size": serving.DIMENSION, "epochs": 3}
        training = await client.train(CATALOG, als=settings, holdout={"method": "METHOD_NONE"})
        model = await training.result()
        await (await client.publish(model.model_id, min_index_recall=0.0)).result()


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-streaming", description=__doc__)
    parser.add_argument("--engine", type=Engine, choices=list(Engine), action="append")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    arguments = parser.parse_args()
    stop_cleanly_on_sigterm()
    engines = arguments.engine or [Engine.LITE, Engine.SERVER]
    finish({engine: measure(engine, arguments.seconds) for engine in engines})


if __name__ == "__main__":
    main()
