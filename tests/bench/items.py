"""Items a second into a release, and into one collection by pymilvus alone.

milvine's part is all that publishing does: it reads the model and the metadata, fills the
collection of scores and the one of neighbours, indexes and loads both, and measures the live index.
Raw is what a script would do: one collection with the same vectors and fields, from rows that are
dicts already, in the best of several batch sizes, then flush, index and load as in milvine.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pymilvus import DataType, MilvusClient

from milvine.artifacts import Artifacts
from milvine.domain.catalog import IndexKind
from milvine.domain.entity import Entity, Side
from milvine.domain.model import Holdout, HoldoutMethod, ModelConfig
from milvine.domain.release import PublishRequest
from milvine.models.serving import load_serving_model
from milvine.records import Records
from milvine.text import same_encoder
from milvine.training import train
from milvine.vectors import Vectors
from tests.bench import synthetic
from tests.bench.deployment import Engine
from tests.bench.report import Stopwatch
from tests.publishing import publish_by

DIMENSION = 64
USERS = 200
EVENTS_EACH_ITEM = 2
BATCHES = {Engine.LITE: (100, 150, 200, 500), Engine.SERVER: (1_000, 2_000, 5_000)}
"""Rows of an insert to try: Lite slows down with the square of it."""
RAW_S = 300.0


@dataclass(frozen=True, slots=True)
class World:
    """A catalog with items, and a trained model of it."""

    records: Records
    artifacts: Artifacts
    model_id: str

    @classmethod
    def create(cls, folder: Path, item_count: int) -> World:
        """Fill records and train a model of them; the events are few, for items are measured."""
        records = Records.open(f"sqlite:///{folder / 'items.db'}")
        artifacts = Artifacts(str(folder / "artifacts"))
        catalog = records.catalogs.create(synthetic.SHOP)
        records.entities.upsert(catalog.id, Side.ITEM, synthetic.items(item_count))
        size = synthetic.Size(USERS, item_count, EVENTS_EACH_ITEM * item_count)
        events = synthetic.interactions(size)
        records.interactions.append(catalog.id, events)
        model = train(
            events,
            catalog,
            ModelConfig("als", {"embedding_size": DIMENSION, "epochs": 1}),
            Holdout(HoldoutMethod.NONE),
            model_id=uuid.uuid4().hex,
            display_name="",
            artifacts=artifacts,
            device="cpu",
            report=lambda _: None,
            cancelled=lambda: False,
        )
        records.models.create(model)
        return cls(records, artifacts, model.id)

    def rows(self) -> list[dict[str, object]]:
        """The items as pymilvus takes them."""
        served = load_serving_model(
            self.artifacts, self.records.models.get(self.model_id), same_encoder
        )
        ids = served.items.ids.to_pylist()
        entities = {e.id: e for e in self.records.entities.get(synthetic.SHOP.id, Side.ITEM, ids)}
        vectors = served.item_vectors.tolist()
        return [_row(entities[i], vector) for i, vector in zip(ids, vectors, strict=True)]


async def milvine_per_s(world: World, uri: str) -> float:
    """Items a second into an active release."""
    vectors = await Vectors.connect(uri)
    try:
        # Made-up tastes have no structure that a graph could follow: only the time counts here.
        request = PublishRequest(
            synthetic.SHOP.id, world.model_id, f"r{uuid.uuid4().hex[:12]}", min_index_recall=0.0
        )
        with Stopwatch() as watch:
            release = await publish_by(world.records, vectors, world.artifacts, request)
        return release.item_count / watch.seconds
    finally:
        await vectors.close()


def raw_per_s(rows: list[dict[str, object]], uri: str, kind: IndexKind, batch: int) -> float:
    """Items a second into a loaded collection, by pymilvus."""
    name = f"raw_{uuid.uuid4().hex[:12]}"
    with closing(MilvusClient(uri, timeout=RAW_S)) as client:
        with Stopwatch() as watch:
            client.create_collection(name, schema=_schema(), num_shards=1)
            for start in range(0, len(rows), batch):
                client.insert(name, rows[start : start + batch])
            client.flush(name)
            client.create_index(name, _index(client, kind))
            client.load_collection(name)
        client.drop_collection(name)
    return len(rows) / watch.seconds


def _row(entity: Entity, vector: list[float]) -> dict[str, object]:
    fields = {n: list(v) if isinstance(v, tuple) else v for n, v in entity.fields.items()}
    return {"id": entity.id, "vector": vector, **fields}


def _schema() -> object:
    schema = MilvusClient.create_schema(enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=256)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
    schema.add_field("title", DataType.VARCHAR, max_length=65_535)
    schema.add_field("year", DataType.INT64)
    schema.add_field(
        "genres",
        DataType.ARRAY,
        element_type=DataType.VARCHAR,
        max_capacity=1_024,
        max_length=1_024,
    )
    return schema


def _index(client: MilvusClient, kind: IndexKind) -> object:
    index = synthetic.SHOP.vector_index
    hnsw = {"M": index.hnsw_links, "efConstruction": index.hnsw_build_candidates}
    parameters = client.prepare_index_params()
    parameters.add_index(
        "vector",
        index_type=str(kind),
        metric_type="IP",
        params=hnsw if kind is IndexKind.HNSW else {},
    )
    return parameters
