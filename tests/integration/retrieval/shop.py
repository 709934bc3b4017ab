"""A catalog of items that say something, some of which nobody has had to do with."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from milvine.domain.catalog import Catalog, EventType, Field, FieldType, IndexKind, VectorIndex
from milvine.domain.entity import Entity, Side
from milvine.domain.interaction import INTERACTIONS
from milvine.domain.model import Holdout, HoldoutMethod, ModelConfig
from milvine.domain.query import Selection, UserSubject
from milvine.domain.release import PublishRequest, Release
from milvine.models.serving import load_serving_model
from milvine.releases.follow import carry_changes
from milvine.retrieval import (
    ActiveReleases,
    MappedItems,
    People,
    Popularity,
    Retriever,
    TextSearch,
)
from milvine.text import same_encoder, text_encoder
from milvine.training import read_texts, train
from tests.publishing import publish_by

TIMEOUT_S = 20.0
GROUPS = ("dragon castle wizard", "murder detective clue", "planet rocket alien")
FIELDS = (
    Field("title", FieldType.STRING, embed_text=True),
    Field("is_new", FieldType.BOOL),
    Field("group", FieldType.INT64),
)
NEW = Selection(page_size=4, filter="is_new == true")
_numbers = itertools.count()


def learned(number: int) -> Entity:
    group = number % 3
    title = f"{GROUPS[group]} {number}"
    return Entity(f"old {number:03}", {"title": title, "is_new": False, "group": group})


def new(number: int, title: str | None = None) -> Entity:
    """An item that nobody had to do with."""
    group = number % 3
    title = GROUPS[group] if title is None else title
    return Entity(f"new {number:03}", {"title": title, "is_new": True, "group": group})


@dataclass(frozen=True)
class Shop:
    """A catalog that serves, and its stores."""

    stores: object
    catalog: Catalog
    release: Release

    def retriever(self) -> Retriever:
        """What a process that has just started has."""
        stores = self.stores
        mapped = MappedItems(stores.records, stores.vectors)
        releases = ActiveReleases(stores.records, stores.artifacts, refresh_s=0.001, mapped=mapped)
        people = People(stores.records, staleness_s=0)
        return Retriever(
            stores.records, people, stores.vectors, releases, Popularity(stores.records)
        )

    def text_search(self) -> TextSearch:
        """The same for searches by text."""
        stores = self.stores
        mapped = MappedItems(stores.records, stores.vectors)
        releases = ActiveReleases(stores.records, stores.artifacts, refresh_s=0.001, mapped=mapped)
        people = People(stores.records, staleness_s=0)
        return TextSearch(stores.vectors, people, releases, Popularity(stores.records))

    async def upsert(self, *items: Entity) -> None:
        """Write items, and follow."""
        write = self.stores.records.entities.upsert
        await asyncio.to_thread(write, self.catalog.id, Side.ITEM, list(items))
        await self.follow()

    async def follow(self) -> None:
        model = self.stores.records.models.get(self.release.model_id)
        served = load_serving_model(self.stores.artifacts, model, same_encoder)
        await carry_changes(self.stores.records, self.stores.vectors, self.release, served)

    async def vectors_of(self, retriever, *ids: str) -> dict[str, np.ndarray]:
        found = await retriever.embeddings(self.catalog.id, ids, [], timeout_s=TIMEOUT_S)
        return found.items


async def make_shop(stores, index: IndexKind) -> Shop:
    """Three groups of readers, of items that they read, and of new ones."""
    number = next(_numbers)
    catalog = stores.records.catalogs.create(
        Catalog(
            f"newshop{number}",
            (EventType("read"),),
            item_fields=FIELDS,
            vector_index=VectorIndex(index),
        )
    )
    items = [*map(learned, range(120)), *map(new, range(12))]
    stores.records.entities.upsert(catalog.id, Side.ITEM, items)
    stores.records.interactions.append(catalog.id, events())
    model = train(
        stores.records.interactions.scan(catalog.id),
        catalog,
        ModelConfig("als", {"embedding_size": 8, "epochs": 5}),
        Holdout(HoldoutMethod.NONE),
        model_id=f"newshop_model{number}",
        display_name="",
        artifacts=stores.artifacts,
        device="cpu",
        report=lambda _: None,
        cancelled=lambda: False,
        texts=read_texts(stores.records, catalog, text_encoder("hashing:256")),
    )
    stores.records.models.create(model)
    order = PublishRequest(catalog.id, model.id, f"newshop_release{number}")
    release = await publish_by(stores.records, stores.vectors, stores.artifacts, order)
    return Shop(stores, catalog, release)


def events() -> pa.Table:
    rng = np.random.default_rng(0)
    rows = [
        (f"reader {user}", f"old {3 * int(n) + user % 3:03}")
        for user in range(30)
        for n in rng.choice(40, 15, replace=False)
    ]
    users, ids = zip(*rows, strict=True)
    return pa.table(
        {
            "event_id": pa.nulls(len(rows), pa.string()),
            "user_id": pa.array(users),
            "item_id": pa.array(ids),
            "event_type": pa.array(["read"] * len(rows)),
            "value": pa.nulls(len(rows), pa.float64()),
            "event_time": pa.array(range(len(rows)), pa.int64()),
        },
        schema=INTERACTIONS,
    )


async def recommended(shop, retriever, user: int, selection=NEW) -> list[str]:
    subject = UserSubject(f"reader {user}")
    (answer,) = await retriever.recommend(
        shop.catalog.id, [subject], selection, timeout_s=TIMEOUT_S
    )
    return [hit.id for hit in answer.hits]


async def eventually(read, is_so):
    """What a read gives once it is so: a server's reads may miss the latest writes."""
    async with asyncio.timeout(TIMEOUT_S):
        while not is_so(got := await read()):  # noqa: ASYNC110 - a store changes
            await asyncio.sleep(0.05)
    return got
