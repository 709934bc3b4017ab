"""Ranked recommendations beside plain ones, in the process of this program, over Milvus Lite.

    python -m tests.bench.ranking --items 50000

One caller asks for 20 items of random vectors of 64 dimensions. `load_s` is what the first request
that ranks by four fields waits for.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from milvine.artifacts import Artifacts
from milvine.domain.catalog import Catalog, EventType, Field, FieldType
from milvine.domain.entity import Entity, Side
from milvine.domain.query import Selection, VectorSubject
from milvine.domain.ranking import Boost, Cap, Diversity, Factor, NumberDecay, Ranking, TimeDecay
from milvine.domain.release import PublishRequest
from milvine.records import Records
from milvine.retrieval import ActiveReleases, People, Popularity, Retriever
from milvine.vectors import Vectors
from tests.bench.report import Stopwatch, console, finish, stop_cleanly_on_sigterm
from tests.made_model import store_model
from tests.publishing import publish_by
from tests.servers.milvus import run_lite

CATALOG, DIMENSION, HITS, QUERIES, TIMEOUT_S = "shop", 64, 20, 100, 60.0
FIELDS = (
    Field("author", FieldType.STRING),
    Field("price", FieldType.DOUBLE),
    Field("made", FieldType.TIMESTAMP),
    Field("year", FieldType.INT64),
    Field("tags", FieldType.STRING_LIST),
)
_NEW = Boost(Factor(2.0), "year >= 2000")
_DECAYS = (
    Boost(NumberDecay("price", 10, 5)),
    Boost(TimeDecay("made", None, timedelta(days=30))),
)
RANKINGS = {
    "everything": Ranking((_NEW, *_DECAYS), Diversity(0.7), (Cap("author", 2), Cap("tags", 3))),
    "plain": Ranking(),
    "boost": Ranking((_NEW,)),
    "decays": Ranking(_DECAYS),
    "cap": Ranking(caps=(Cap("author", 2),)),
    "diversity": Ranking(diversity=Diversity(0.7)),
    "diversity among 1,000": Ranking(diversity=Diversity(0.7, 1_000)),
}


async def measure(items: int, uri: str, home: Path) -> dict[str, object]:
    """The milliseconds of each ranking, with and without a filter."""
    records, vectors = Records.open(f"sqlite:///{home / 'records.db'}"), await Vectors.connect(uri)
    artifacts = Artifacts(str(home / "artifacts"))
    console.print(f"putting {items:,} items into service")
    await put_into_service(records, vectors, artifacts, items)
    releases = ActiveReleases(records, artifacts, refresh_s=1.0)
    people = People(records, staleness_s=0)
    retriever = Retriever(records, people, vectors, releases, Popularity(records))
    queries = np.random.default_rng(1).normal(size=(QUERIES, DIMENSION)).astype(np.float32)
    with Stopwatch() as load:
        await ask(retriever, queries[:1], Selection(ranking=RANKINGS["everything"]))
    told: dict[str, object] = {"items": items, "load_s": round(load.seconds, 2)}
    for filter_ in ("", "year >= 1990"):
        for name, ranking in RANKINGS.items():
            selection = Selection(page_size=HITS, filter=filter_, ranking=ranking)
            await ask(retriever, queries[:5], selection)
            took = await ask(retriever, queries, selection)
            told[f"{name}, filtered" if filter_ else name] = took
            console.print(f"{filter_ or 'no filter':12} {name:22} {took}")
    await vectors.close()
    records.close()
    return told


async def put_into_service(
    records: Records, vectors: Vectors, artifacts: Artifacts, items: int
) -> None:
    """Publish a model of random vectors."""
    records.catalogs.create(Catalog(CATALOG, (EventType("view"),), item_fields=FIELDS))
    rng = np.random.default_rng(0)
    made = [Entity(f"item {n}", make_fields(rng)) for n in range(items)]
    for start in range(0, items, 10_000):
        records.entities.upsert(CATALOG, Side.ITEM, made[start : start + 10_000])
    points = rng.normal(size=(items, DIMENSION)).astype(np.float32)
    model = store_model(records, artifacts, CATALOG, [item.id for item in made], points)
    request = PublishRequest(CATALOG, model.id, "r1", min_index_recall=0.0)
    await publish_by(records, vectors, artifacts, request)


def make_fields(rng: np.random.Generator) -> dict[str, object]:
    """Fields of an item; few authors have many."""
    return {
        "author": f"author {rng.zipf(1.5) % 5_000}",
        "price": float(rng.normal(10, 5)),
        "made": datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=float(rng.uniform(0, 700))),
        "year": int(rng.integers(1950, 2024)),
        "tags": tuple(f"tag {n}" for n in rng.integers(0, 50, 3)),
    }


async def ask(retriever: Retriever, queries: np.ndarray, selection: Selection) -> dict[str, float]:
    """Ask one after the other; the milliseconds at the median and the 95th percentile."""
    seconds = []
    for query in queries:
        with Stopwatch() as took:
            await retriever.recommend(
                CATALOG, [VectorSubject(query)], selection, timeout_s=TIMEOUT_S
            )
        seconds.append(took.seconds)
    p50, p95 = np.percentile(seconds, [50, 95]) * 1_000
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2)}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=50_000)
    asked = parser.parse_args()
    stop_cleanly_on_sigterm()
    with (
        tempfile.TemporaryDirectory() as home,
        run_lite(Path(home)) as uri,
        threadpool_limits(1, user_api="blas"),
    ):
        finish(asyncio.run(measure(asked.items, uri, Path(home))))


if __name__ == "__main__":
    main()
