"""Recommendations for every user in one stream beside one call a user.

    python -m tests.bench.bulk

Both are for the same users of the same release: RecommendAll to one client that takes the messages
as they come, and Recommend from 64 callers whose load generator costs little.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from milvine.client import Client
from tests.bench import serving
from tests.bench.deployment import Deployment, Engine, deployment
from tests.bench.report import console, finish, stop_cleanly_on_sigterm

CALLERS = 64
SECONDS = 8.0


async def stream(deployed: Deployment) -> dict[str, float]:
    """Recommend to everybody; users a second."""
    began, before, users = time.perf_counter(), serving.cpu_s(deployed.pid), 0
    async with Client(deployed.address) as client:
        async for page in client.recommend_all(serving.CATALOG, page_size=serving.COUNT):
            users += len(page.users)
    seconds = time.perf_counter() - began
    cpu_s = serving.cpu_s(deployed.pid) - before
    return {
        "users": users,
        "seconds": round(seconds, 2),
        "users_per_s": round(users / seconds, 1),
        "cpu_ms_per_user": round(cpu_s * 1_000 / users, 3),
    }


async def measure(engine: Engine) -> dict[str, object]:
    """Both, over one engine."""
    with tempfile.TemporaryDirectory() as home, deployment(Path(home), engine) as deployed:
        console.print(f"{engine}: putting {serving.ITEMS[engine]:,} items into service")
        model_id, collection = await serving.put_into_service(deployed, engine)
        world = serving.describe(deployed, model_id, collection, "")
        told = [await stream(deployed) for _ in range(2)][-1]
        console.print(f"{engine}: {told}")
        calls = serving.ask_milvine(deployed, world, CALLERS, SECONDS).figures()
    return {
        "recommend_all": told,
        "recommend": calls,
        "ratio": round(told["users_per_s"] / calls["qps"], 2),
    }


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-bulk", description=__doc__)
    parser.add_argument("--engine", type=Engine, choices=list(Engine), action="append")
    arguments = parser.parse_args()
    stop_cleanly_on_sigterm()
    engines = arguments.engine or [Engine.SERVER, Engine.LITE]
    finish({engine: asyncio.run(measure(engine)) for engine in engines})


if __name__ == "__main__":
    main()
