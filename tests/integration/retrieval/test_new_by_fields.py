"""Items and users that came after the model was trained: placed by their fields, over gRPC."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from milvine.api import build_server
from milvine.client import Boost, Client, Interaction, Item, Ranking, User, pages
from milvine.domain.catalog import Catalog, EventType, Field, FieldType, IndexKind, VectorIndex
from milvine.domain.entity import Entity, Side
from milvine.domain.interaction import INTERACTIONS
from milvine.domain.model import Holdout, HoldoutMethod, Model, ModelConfig
from milvine.domain.release import PublishRequest
from milvine.models.serving import load_serving_model
from milvine.releases.follow import carry_changes
from milvine.retrieval import ActiveReleases, MappedItems, People, Popularity, Retriever
from milvine.text import same_encoder
from milvine.training import train
from tests.integration.api.conftest import RecordsOnly
from tests.integration.conftest import open_stores
from tests.publishing import publish_by

GENRES = ("drama", "comedy", "horror", "western")
ITEMS, USERS, TIMEOUT_S = 80, 60, 20.0
CONFIG = ModelConfig(
    "two_tower", {"embedding_size": 16, "epochs": 30, "learning_rate": 0.01, "field_dropout": 0.2}
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Process(RecordsOnly):
    """The services of one process, which remembers users."""

    known: People | None = None

    @property
    def people(self) -> People:
        """Users as retrieval sees them."""
        return self.known


@dataclass(frozen=True)
class Cinema:
    """A catalog in service: each user has films of one genre, and says which."""

    catalog: Catalog
    model: Model
    release_id: str


def film(number: int) -> Entity:
    """A film whose genre follows from its number."""
    fields = {"genre": GENRES[number % 4], "year": 1990 + number % 7, "tags": ("x", "y")}
    return Entity(f"film {number:02}", fields)


def viewer(number: int) -> Entity:
    """A user whose favourite genre follows from the number."""
    return Entity(f"viewer {number:02}", {"likes": GENRES[number % 4]})


@pytest.fixture(scope="module", params=[IndexKind.FLAT, IndexKind.HNSW])
def cinema(request, urls, records):
    """A published model, which knows neither film 80 to 83 nor viewer 60 to 63 by interactions."""

    async def make():
        async with open_stores(urls, records) as stores:
            return await open_cinema(stores, request.param)

    return asyncio.run(make())


async def open_cinema(stores, index) -> Cinema:
    """Train and publish."""
    catalog = Catalog(
        f"cinema{next(_numbers)}{index.lower()}",
        (EventType("view"),),
        item_fields=(
            Field("genre", FieldType.STRING),
            Field("year", FieldType.INT64),
            Field("tags", FieldType.STRING_LIST),
        ),
        user_fields=(Field("likes", FieldType.STRING),),
        vector_index=VectorIndex(index),
    )
    records = stores.records
    catalog = records.catalogs.create(catalog)
    records.entities.upsert(catalog.id, Side.ITEM, [film(n) for n in range(ITEMS + 4)])
    records.entities.upsert(catalog.id, Side.USER, [viewer(n) for n in range(USERS + 4)])
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
    )
    records.models.create(model)
    request = PublishRequest(catalog.id, model.id, f"r{catalog.id}")
    release = await publish_by(records, stores.vectors, stores.artifacts, request)
    return Cinema(catalog, model, release.id)


def views() -> pa.Table:
    """Each user saw twelve films of the favourite genre, the others differ."""
    rng = np.random.default_rng(5)
    rows = [
        (viewer(user).id, film(4 * int(n) + user % 4).id, at)
        for user in range(USERS)
        for at, n in enumerate(rng.choice(ITEMS // 4, 12, replace=False))
    ]
    users, items, times = zip(*rows, strict=True)
    columns = {"user_id": users, "item_id": items, "event_time": times}
    columns |= {"event_type": ["view"] * len(rows), "event_id": [None] * len(rows)}
    return pa.table(columns | {"value": [None] * len(rows)}, schema=INTERACTIONS)


@asynccontextmanager
async def serving(stores):
    """A process that serves; it looks releases up at each call."""
    records = stores.records
    releases = ActiveReleases(
        records,
        stores.artifacts,
        refresh_s=0.001,
        mapped=MappedItems(records, stores.vectors),
    )
    people = People(records, staleness_s=60)
    retriever = Retriever(records, people, stores.vectors, releases, Popularity(records))
    server = build_server(Process(records, retriever=retriever, known=people))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Client(address) as made:
        yield made
    await server.stop(None)


@pytest.fixture
async def client(stores):
    """A client of the API over the stores."""
    async with serving(stores) as made:
        yield made


async def follow(stores, cinema):
    """Carry what was written into the release, as a worker does."""
    release = stores.records.releases.get(cinema.release_id)
    served = load_serving_model(stores.artifacts, cinema.model, same_encoder)
    await carry_changes(stores.records, stores.vectors, release, served)


async def until(condition):
    """Ask until it holds: reads may miss the latest writes, and processes look later."""
    async with asyncio.timeout(TIMEOUT_S):
        while not await condition():
            pass


def genres_of(hits) -> set[str]:
    """The genres of films by their numbers."""
    return {GENRES[int(hit.id.split()[1]) % 4] for hit in hits if hit.id.startswith("film")}


async def test_a_release_holds_what_the_model_did_not_learn(stores, cinema):
    """New items and users with fields count among its rows."""
    release = stores.records.releases.get(cinema.release_id)
    assert cinema.model.item_count == ITEMS
    assert (release.item_count, release.user_count) == (ITEMS + 4, USERS + 4)
    assert release.gate.index_recall >= 0.95


async def test_a_user_with_fields_alone_is_answered_personally(client, cinema):
    """Someone who did nothing gets films of the genre that the fields name."""
    for number in range(USERS, USERS + 4):
        found = await client.recommend(cinema.catalog.id, user=viewer(number).id, page_size=8)
        assert not found.is_popular
        assert genres_of(found.hits) == {GENRES[number % 4]}


async def test_unknown_users_still_get_popular_items(client, cinema):
    """Without a history and without fields, nothing is known."""
    found = await client.recommend(cinema.catalog.id, user="nobody")
    assert found.is_popular


async def test_fields_that_are_written_count_at_once(client, cinema):
    """A user is placed anew as soon as fields say something else."""
    catalog_id = cinema.catalog.id
    for genre in ("horror", "western"):
        await client.upsert_users(catalog_id, [User("changing", {"likes": genre})])
        found = await client.recommend(catalog_id, user="changing", page_size=8)
        assert genres_of(found.hits) == {genre}
    await client.delete_users(catalog_id, ["changing"])
    assert (await client.recommend(catalog_id, user="changing")).is_popular


async def test_what_a_new_user_does_counts_beside_fields(client, cinema):
    """The first views move the recommendations."""
    catalog_id = cinema.catalog.id
    await client.upsert_users(catalog_id, [User("torn", {"likes": "drama"})])
    before = await client.rank_items(catalog_id, [film(81).id, film(80).id], user="torn")
    seen = [Interaction("torn", film(4 * n + 1).id, "view") for n in range(12)]
    await client.record(catalog_id, seen)
    after = await client.rank_items(catalog_id, [film(81).id, film(80).id], user="torn")

    assert [hit.id for hit in before.hits] == [film(80).id, film(81).id]
    gap = [one.hits[0].score - one.hits[1].score for one in (before, after)]
    drama_leads = [one.hits[0].id == film(80).id for one in (before, after)]
    assert not drama_leads[1] or gap[1] < gap[0]


@pytest.mark.parametrize("filter_", ["", "year >= 1990", 'genre in ["drama", "horror"]'])
async def test_new_items_are_recommended(client, cinema, filter_):
    """They stand among all others, by the index and exactly, to those who like their like."""
    found = await client.recommend(
        cinema.catalog.id, user=viewer(0).id, filter=filter_, page_size=12, return_fields=["*"]
    )
    assert genres_of(found.hits[:9]) == {"drama"}
    new = next(hit for hit in found.hits if hit.id == film(80).id)
    assert new.fields["genre"] == "drama"


async def test_pages_list_everything_once(client, cinema):
    """Lists with rankings and without go over new items without repeating or skipping."""
    rankings = [
        None,
        Ranking(boosts=[Boost(2.0, "year >= 1993")], caps={"year": 20}),
        Ranking(relevance=0.5),
    ]
    for ranking in rankings:
        found = [
            hit.id
            async for page in pages(
                client.recommend,
                cinema.catalog.id,
                user=viewer(3).id,
                ranking=ranking,
                page_size=9,
            )
            for hit in page.hits
        ]
        assert len(found) == len(set(found)) == ITEMS + 4 - 12
        assert {film(n).id for n in range(ITEMS, ITEMS + 4)} <= set(found)


async def test_items_are_found_as_they_are_written(stores, client, cinema):
    """New ones come, their fields move them, and they go when they are deleted."""
    catalog_id, user = cinema.catalog.id, viewer(1).id

    async def rank_of(name) -> int | None:
        found = await client.recommend(catalog_id, user=user, page_size=200, explain=True)
        ids = [hit.id for hit in found.hits]
        return ids.index(name) if name in ids else None

    async def is_first():
        place = await rank_of("brand new")
        return place is not None and place < 12

    async def is_last():
        return (await rank_of("brand new") or 0) > 12

    await client.upsert_items(catalog_id, [replace(film(81), id="brand new")])
    await follow(stores, cinema)
    await until(is_first)
    similar = await client.similar_items(catalog_id, "brand new", page_size=3)
    assert genres_of(similar.hits) == {"comedy"}
    ranked = await client.rank_items(catalog_id, ["brand new", film(0).id], user=user)
    assert [hit.id for hit in ranked.hits] == ["brand new", film(0).id]
    audience = await client.find_audience(catalog_id, "brand new", page_size=5)
    assert {int(hit.id.split()[1]) % 4 for hit in audience.hits} == {1}

    await client.upsert_items(catalog_id, [replace(film(82), id="brand new")])
    await follow(stores, cinema)
    await until(is_last)

    async def is_gone():
        return await rank_of("brand new") is None

    await client.upsert_items(catalog_id, [Item("brand new", {})])
    await follow(stores, cinema)
    await until(is_gone)
    await client.upsert_items(catalog_id, [replace(film(81), id="brand new")])
    await follow(stores, cinema)
    await until(is_first)
    await client.delete_items(catalog_id, ["brand new"])
    await follow(stores, cinema)
    await until(is_gone)


async def test_processes_agree_on_pages_of_new_items(stores, client, cinema):
    """A process that came to know new items in another order goes on where the first one was."""
    catalog_id, user = cinema.catalog.id, viewer(2).id
    await client.upsert_items(catalog_id, [replace(film(82), id="z first")])
    await follow(stores, cinema)

    async def has_both():
        found = await client.recommend(catalog_id, user=user, page_size=200)
        return {"z first", "a second"} <= {hit.id for hit in found.hits}

    await client.recommend(catalog_id, user=user)
    await client.upsert_items(catalog_id, [replace(film(82), id="a second")])
    await follow(stores, cinema)
    await until(has_both)
    ranking = Ranking(relevance=0.9)
    whole = await client.recommend(catalog_id, user=user, ranking=ranking, page_size=40)
    first = await client.recommend(catalog_id, user=user, ranking=ranking, page_size=20)
    async with serving(stores) as other:
        second = await other.recommend(
            catalog_id,
            user=user,
            ranking=ranking,
            page_size=20,
            page_token=first.next_page_token,
        )
    shown = [hit.id for hit in (*first.hits, *second.hits)]
    assert len(set(shown)) == 40
    assert {"z first", "a second"} <= set(shown)
    assert shown == [hit.id for hit in whole.hits]
    await client.delete_items(catalog_id, ["z first", "a second"])
    await follow(stores, cinema)


async def test_an_explanation_of_fields_alone_has_no_contributions(client, cinema):
    """There is no item of a history that could be left out."""
    found = await client.recommend(cinema.catalog.id, user=viewer(USERS).id, explain=True)
    assert not found.is_popular
    assert all(hit.explanation.contributions == () for hit in found.hits)


async def test_users_of_the_release_follow_their_fields(stores, client, cinema):
    """A user who comes with fields is in audiences, and one whose fields go is not."""
    catalog_id = cinema.catalog.id

    async def is_there():
        return "fan" in (await client.embeddings(catalog_id, users=["fan"])).users

    async def is_gone():
        return not await is_there()

    await client.upsert_users(catalog_id, [User("fan", {"likes": "western"})])
    await follow(stores, cinema)
    await until(is_there)
    await client.upsert_users(catalog_id, [User("fan", {})])
    await follow(stores, cinema)
    await until(is_gone)
