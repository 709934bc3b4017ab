"""Items that came after a two_tower model was trained, known by their texts alone, over gRPC."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from functools import partial

import pytest

from milvine.client import Item
from milvine.domain.catalog import Catalog, EventType, Field, FieldType, IndexKind, VectorIndex
from milvine.domain.entity import Entity, Side
from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.model import Holdout, HoldoutMethod, Model, ModelConfig
from milvine.domain.release import PublishRequest
from milvine.models.serving import load_serving_model
from milvine.releases.follow import carry_changes
from milvine.text import same_encoder, text_encoder
from milvine.training import train
from tests.integration.conftest import open_stores
from tests.integration.retrieval.test_new_by_fields import serving, until, viewer, views
from tests.publishing import publish_by

PLOTS = (
    "a quiet family drama by the sea",
    "a silly comedy of mistaken twins",
    "a haunted house full of ghosts",
    "outlaws and sheriffs in the desert",
)
FILMS = 80
CONFIG = ModelConfig(
    "two_tower", {"embedding_size": 16, "epochs": 30, "learning_rate": 0.01, "field_dropout": 0.2}
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Library:
    """A catalog in service, whose items have texts and nothing else."""

    catalog: Catalog
    model: Model
    release_id: str


def told(number: int) -> Entity:
    """A film whose kind only its plot tells."""
    return Entity(f"film {number:02}", {"plot": PLOTS[number % 4]})


@pytest.fixture(scope="module", params=[IndexKind.FLAT, IndexKind.HNSW])
def library(request, urls, records):
    """A published model that learned 80 films, of 84 that there are."""

    async def make():
        async with open_stores(urls, records) as stores:
            return await open_library(stores, request.param)

    return asyncio.run(make())


async def open_library(stores, index) -> Library:
    """Train and publish."""
    records = stores.records
    catalog = records.catalogs.create(
        Catalog(
            f"told{next(_numbers)}{index.lower()}",
            (EventType("view"),),
            item_fields=(Field("plot", FieldType.STRING, embed_text=True),),
            vector_index=VectorIndex(index),
        )
    )
    records.entities.upsert(catalog.id, Side.ITEM, [told(n) for n in range(FILMS + 4)])
    records.interactions.append(catalog.id, views())
    model = await asyncio.to_thread(
        train,
        records.interactions.scan(catalog.id),
        catalog,
        CONFIG,
        Holdout(HoldoutMethod.NONE),
        model_id=f"m{catalog.id}",
        display_name="",
        artifacts=stores.artifacts,
        device="cpu",
        report=lambda _: None,
        cancelled=lambda: False,
        read_fields=partial(records.entities.table, catalog.id),
        reader=text_encoder("hashing"),
    )
    records.models.create(model)
    request = PublishRequest(catalog.id, model.id, f"r{catalog.id}")
    release = await publish_by(records, stores.vectors, stores.artifacts, request)
    return Library(catalog, model, release.id)


async def test_a_film_is_recommended_by_what_it_says_once_it_is_written(stores, library):
    """It comes to those who like its like, from the tower alone, and moves with its text."""
    catalog_id, release_id = library.catalog.id, library.release_id
    served = load_serving_model(stores.artifacts, library.model, same_encoder)
    assert served.content is None

    async def write(plot: str) -> None:
        await client.upsert_items(catalog_id, [Item("brand new", {"plot": plot})])
        release = stores.records.releases.get(release_id)
        await carry_changes(stores.records, stores.vectors, release, served)

    async def is_among_the_first(user: int) -> bool:
        found = await client.recommend(catalog_id, user=viewer(user).id, page_size=10)
        return "brand new" in [hit.id for hit in found.hits]

    async with serving(stores) as client:
        await write(PLOTS[2])
        await until(lambda: is_among_the_first(2))
        assert not await is_among_the_first(3)
        await write(PLOTS[3])
        await until(lambda: is_among_the_first(3))
        assert not await is_among_the_first(2)


async def test_what_came_before_the_release_is_in_it(stores, library):
    """A build places items that the model did not learn, as the follower does."""
    assert stores.records.releases.get(library.release_id).item_count >= FILMS + 4


async def test_another_reader_of_texts_is_refused(stores, library):
    """What texts of another version say is not known: following and publishing fail clearly."""

    def gone(name: str, fingerprint: str):
        raise FailedPrecondition(f"no {name} of {fingerprint} here", Reason.WRONG_STATE)

    served = load_serving_model(stores.artifacts, library.model, gone)
    stores.records.entities.upsert(library.catalog.id, Side.ITEM, [told(FILMS + 7)])
    release = stores.records.releases.get(library.release_id)
    with pytest.raises(FailedPrecondition, match="no hashing of hashing-1-2048 here"):
        await carry_changes(stores.records, stores.vectors, release, served)
