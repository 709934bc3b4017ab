"""How fast data goes in, beside the drivers alone in the same run.

    python -m tests.bench.ingest

The last line on stdout is one JSON object; `interactions.py` and `items.py` say what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from milvine.client import Client
from tests.bench import interactions, items, synthetic
from tests.bench.deployment import Engine, deployment
from tests.bench.interactions import Events, Raw
from tests.bench.report import console, finish, stop_cleanly_on_sigterm
from tests.servers.postgres import fresh_database, run_postgres

INTERACTIONS = synthetic.Size(users=100_000, items=20_000, interactions=1_000_000)
ITEMS = 20_000
STREAM_S = 600.0


def measure_interactions(size: synthetic.Size) -> dict[str, object]:
    """Every way on SQLite, and those that differ on PostgreSQL."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        events = Events.create(folder, size)
        with run_postgres(folder / "postgres") as server:
            on_postgres = _without_server(events, lambda: fresh_database(server))
        on_sqlite = _without_server(events, _files(folder))
        streamed = asyncio.run(_streamed(events, folder))
    return {**streamed, **on_sqlite, "postgresql": on_postgres}


def _files(folder: Path) -> Callable[[], str]:
    names = iter(range(100))
    return lambda: f"sqlite:///{folder}/{next(names)}.db"


def _without_server(events: Events, fresh: Callable[[], str]) -> dict[str, float]:
    raw = {form: interactions.raw_per_s(events, fresh(), form) for form in Raw}
    figures = {
        "import_per_s": interactions.import_per_s(events, fresh()),
        "raw_per_s": raw[Raw.AS_IS],
        "raw_sorted_per_s": raw[Raw.SORTED],
        "raw_no_keys_per_s": raw[Raw.NO_KEYS],
    }
    return _told(figures, f"{len(events.table):,} interactions")


async def _streamed(events: Events, folder: Path) -> dict[str, float]:
    with deployment(folder, Engine.LITE) as deployed:
        async with Client(deployed.address, timeout_s=STREAM_S) as client:
            figures = {
                "grpc_per_s": await interactions.grpc_per_s(events, client),
                "grpc_prebuilt_per_s": await interactions.prebuilt_per_s(events, client),
            }
    return _told(figures, f"{len(events.table):,} interactions")


def measure_items(count: int) -> dict[str, dict[str, float]]:
    """Both engines, one after the other."""
    with tempfile.TemporaryDirectory() as home:
        world = items.World.create(Path(home), count)
        rows = world.rows()
        return {str(engine): _on_engine(world, rows, engine, Path(home)) for engine in Engine}


def _on_engine(
    world: items.World, rows: list[dict[str, object]], engine: Engine, home: Path
) -> dict[str, float]:
    with engine.run(home) as uri:
        built = asyncio.run(items.milvine_per_s(world, uri))
        raw = {
            size: items.raw_per_s(rows, uri, engine.index, size) for size in items.BATCHES[engine]
        }
    figures = {"milvine_per_s": built, "raw_per_s": max(raw.values())}
    return _told(figures, f"{len(rows):,} items on {engine}, raw by batch size {raw}")


def _told(figures: dict[str, float], what: str) -> dict[str, float]:
    rounded = {name: round(value, 1) for name, value in figures.items()}
    console.print(f"{what}: {rounded}")
    return rounded


def main() -> None:
    """Measure all and print the figures."""
    parser = argparse.ArgumentParser(prog="bench-ingest", description=__doc__)
    parser.add_argument("--interactions", type=int, default=INTERACTIONS.interactions)
    parser.add_argument("--items", type=int, default=ITEMS)
    arguments = parser.parse_args()
    stop_cleanly_on_sigterm()
    size = synthetic.Size(INTERACTIONS.users, INTERACTIONS.items, arguments.interactions)
    finish({"interactions": measure_interactions(size), "items": measure_items(arguments.items)})


if __name__ == "__main__":
    main()
