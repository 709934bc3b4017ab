"""A small catalog with a trained model, made from a seed."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from milvine.domain.catalog import Catalog, EventType, Field, FieldType, VectorIndex
from milvine.domain.entity import Entity, Side
from milvine.domain.interaction import INTERACTIONS
from milvine.domain.model import Holdout, HoldoutMethod, Model, ModelConfig
from milvine.domain.release import PublishRequest
from milvine.models.serving import ServingModel, load_serving_model
from milvine.text import same_encoder
from milvine.training import train
from tests.publishing import publish_by

ITEMS, USERS = 400, 60
FIELDS = (
    Field("year", FieldType.INT64),
    Field("genres", FieldType.STRING_LIST),
    Field("title", FieldType.STRING),
)
_numbers = itertools.count()


@dataclass(frozen=True)
class World:
    """What stands in the stores."""

    catalog: Catalog
    items: dict[str, Entity]
    seen: dict[str, set[str]]
    model: Model
    served: ServingModel

    def scores(self, user_id: str) -> dict[str, float]:
        """Every item's score for a user, by the user's vector from the stored history."""
        events = self.events_of[user_id]
        from milvine.models.histories import history_of  # noqa: PLC0415

        history = history_of(events, self.catalog, self.served.feedback, items=self.served.items)
        vector = self.served.encoder.encode(history)[0]
        ids = self.served.items.ids.to_pylist()
        return dict(zip(ids, (self.served.item_vectors @ vector).tolist(), strict=True))

    @property
    def events_of(self) -> dict[str, pa.Table]:
        """The interactions of each user."""
        return {
            user: _table([(user, item, at) for at, item in enumerate(sorted(items))])
            for user, items in self.seen.items()
        }


ALS = ModelConfig("als", {"embedding_size": 16, "epochs": 4})


async def make_world(
    stores,
    *,
    index: VectorIndex | None = None,
    has_items: bool = True,
    config: ModelConfig = ALS,
) -> World:
    """Fill a new catalog and train a model on it; only interactions know the items if not so."""
    index = index or VectorIndex()
    return await asyncio.to_thread(_make, stores, index, config, has_items=has_items)


async def publish(stores, world: World, release_id: str, report=lambda _: None, **options):
    """Publish the world's model."""
    request = order(world, release_id, **options)
    return await publish_by(stores.records, stores.vectors, stores.artifacts, request, report)


def order(world: World, release_id: str, **options) -> PublishRequest:
    """What publishes the world's model."""
    return PublishRequest(world.catalog.id, world.model.id, release_id, **options)


def _make(stores, index: VectorIndex, config: ModelConfig, *, has_items: bool) -> World:
    number = next(_numbers)
    catalog = stores.records.catalogs.create(
        Catalog(
            f"world{number}",
            (EventType("view"),),
            item_fields=FIELDS,
            user_fields=(Field("age", FieldType.INT64),),
            vector_index=index,
        )
    )
    rng = np.random.default_rng(number)
    items = {entity.id: entity for entity in map(_item, range(ITEMS))}
    if has_items:
        stores.records.entities.upsert(catalog.id, Side.ITEM, list(items.values()))
    users = [Entity(f"user {n}", {"age": 20 + n}) for n in range(USERS)]
    stores.records.entities.upsert(catalog.id, Side.USER, users)
    seen = {user.id: _taste(rng, n) for n, user in enumerate(users)}
    events = [(u, i, at) for u, found in seen.items() for at, i in enumerate(sorted(found))]
    stores.records.interactions.append(catalog.id, _table(events))
    model = train(
        stores.records.interactions.scan(catalog.id),
        catalog,
        config,
        Holdout(HoldoutMethod.NONE),
        model_id=f"model{number}",
        display_name="",
        artifacts=stores.artifacts,
        device="cpu",
        report=lambda _: None,
        cancelled=lambda: False,
    )
    stores.records.models.create(model)
    return World(
        catalog, items, seen, model, load_serving_model(stores.artifacts, model, same_encoder)
    )


def _item(number: int) -> Entity:
    """Ids and titles have what breaks naive quoting; every fifth item has no genres."""
    fields = {"year": 1970 + number % 50, "title": f'The "{number}" \\ film'}
    if number % 5:
        fields["genres"] = ("Drama", "Sci-Fi") if number % 3 else ("Comedy",)
    return Entity(f"item '{number}'\n☃", fields)


def _taste(rng: np.random.Generator, group: int) -> set[str]:
    """Users of a group mostly watch the group's part of the items."""
    near = (group % 4) * 100 + rng.integers(0, 100, 25)
    far = rng.integers(0, ITEMS, 8)
    return {_item(int(n)).id for n in (*near, *far)}


def _table(events: list[tuple[str, str, int]]) -> pa.Table:
    users, items, times = zip(*events, strict=True)
    columns = {
        "event_id": pa.nulls(len(events), pa.string()),
        "user_id": pa.array(users),
        "item_id": pa.array(items),
        "event_type": pa.array(["view"] * len(events)),
        "value": pa.nulls(len(events), pa.float64()),
        "event_time": pa.array(times, pa.int64()),
    }
    return pa.table(columns, schema=INTERACTIONS)
