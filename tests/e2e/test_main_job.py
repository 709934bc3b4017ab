"""The main job through a server in a process of its own and the client."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest

from milvine.client import Client, Entity, Interaction, RpcError
from tests.servers.milvine import MilvineServer
from tests.servers.postgres import fresh_database

GENRES = ("Drama", "Comedy", "Sci-Fi", "Western")
ITEMS, USERS = 200, 40
START = datetime(2026, 1, 1, tzinfo=UTC)
LONG_S = 120.0


@pytest.fixture(scope="module", params=["embedded", "deployed"])
def server(request, tmp_path_factory):
    """A server with its worker, over embedded stores and over PostgreSQL and a Milvus server."""
    settings = {}
    if request.param == "deployed":
        settings = {
            "MILVINE_RECORDS_URL": fresh_database(request.getfixturevalue("postgres_url")),
            "MILVINE_VECTORS_URI": request.getfixturevalue("milvus_uri"),
        }
    running = MilvineServer(tmp_path_factory.mktemp("e2e"), settings)
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture
async def client(server):
    """A client of the server."""
    async with Client(server.address) as connected:
        yield connected


async def fill(client: Client, catalog_id: str) -> None:
    """Declare a catalog and write items, users and interactions: each user loves one genre."""
    await client.create_catalog(
        catalog_id,
        event_types=["watch"],
        item_fields={
            "title": "STRING",
            "year": "INT64",
            "genres": "STRING_LIST",
            "score": "DOUBLE",
            "free": "BOOL",
            "released": "TIMESTAMP",
            "cast_ids": "INT64_LIST",
        },
        user_fields={"age": "INT64"},
    )
    await client.upsert_items(catalog_id, [item(n) for n in range(ITEMS)])
    await client.upsert_users(catalog_id, [Entity(f"u{n}", {"age": 20 + n}) for n in range(USERS)])
    await client.record(catalog_id, [event for n in range(USERS) for event in watched(n)])


def item(n: int) -> Entity:
    """An item; every seventh has no year."""
    fields = {
        "title": f"Film {n}",
        "genres": [GENRES[n % 4]],
        "score": n / 7,
        "free": n % 2 == 0,
        "released": START + timedelta(days=n),
        "cast_ids": [n, 2**60 + n],
    }
    if n % 7:
        fields["year"] = 1980 + n % 40
    return Entity(f"i{n}", fields)


def watched(n: int) -> list[Interaction]:
    """A user's history: fifteen of the fifty items of the genre that the user loves."""
    numbers = [n % 4 + 4 * k for k in random.Random(n).sample(range(50), 15)]  # noqa: S311 - a test
    return [
        Interaction(f"u{n}", f"i{i}", event_time=START + timedelta(minutes=k))
        for k, i in enumerate(numbers)
    ]


async def train_and_publish(client: Client, catalog_id: str) -> str:
    """Train and publish; the id of the release."""
    training = await client.train(catalog_id, als={"embedding_size": 8, "epochs": 5})
    model = await training.result(LONG_S)
    publication = await client.publish(model.model_id)
    return (await publication.result(LONG_S)).release_id


async def test_the_main_job(client):
    """Interactions in, a trained model in Milvus, filtered and ranked results out."""
    await fill(client, "main_job")
    training = await client.train("main_job", als={"embedding_size": 8, "epochs": 5})
    seen = [progress async for progress in training.watch()]
    model = await training.result(LONG_S)
    publication = await client.publish(model.model_id)
    release = await publication.result(LONG_S)

    answer = await client.recommend("main_job", user="u5", page_size=10, return_fields=["*"])
    filtered = await client.recommend(
        "main_job",
        user="u5",
        page_size=10,
        filter="year >= {first} and array_contains_any(genres, {genres})",
        filter_params={"first": 2000, "genres": ["Comedy"]},
        return_fields=["year", "genres"],
    )

    already = {event.item_id for event in watched(5)}
    loved = [hit for hit in answer.hits if hit.fields["genres"] == ["Comedy"]]
    assert model.evaluation.user_count == USERS
    assert model.evaluation.model[0].recall > model.evaluation.popularity[0].recall
    assert [epoch.epoch for epoch in model.epochs] == [1, 2, 3, 4, 5]
    assert [progress.progress for progress in seen] == sorted(p.progress for p in seen)
    assert seen[-1].progress == 1
    assert release.item_count == model.item_count
    assert answer.release_id == filtered.release_id == release.release_id
    assert len(answer.hits) == 10
    assert not already & {hit.id for hit in answer.hits}
    assert len(loved) >= 8
    assert [hit.score for hit in answer.hits] == sorted(
        (hit.score for hit in answer.hits), reverse=True
    )
    assert all(hit.fields == as_returned(hit.id) for hit in answer.hits)
    assert filtered.hits
    assert all(hit.fields["year"] >= 2000 for hit in filtered.hits)
    assert all(hit.fields["genres"] == ["Comedy"] for hit in filtered.hits)


def as_returned(item_id: str) -> dict[str, object]:
    """The fields of an item as a hit has them."""
    return dict(item(int(item_id[1:])).fields)


async def test_new_and_anonymous_people_are_folded_in(client):
    """A user who came after training, and a history in the request, get personal answers."""
    await fill(client, "folded")
    await train_and_publish(client, "folded")
    history = [f"i{2 + 4 * k}" for k in range(6)]  # Sci-Fi

    stranger = await client.recommend("folded", user="newcomer", return_fields=["genres"])
    anonymous = await client.recommend("folded", history=history, return_fields=["genres"])
    await client.record("folded", [Interaction("newcomer", i) for i in history])
    newcomer = await client.recommend("folded", user="newcomer", return_fields=["genres"])

    assert stranger.is_popular
    assert not anonymous.is_popular
    assert [hit.id for hit in newcomer.hits] == [hit.id for hit in anonymous.hits]
    assert sum(hit.fields["genres"] == ["Sci-Fi"] for hit in newcomer.hits) >= 8
    assert not set(history) & {hit.id for hit in newcomer.hits}


async def test_neighbours_and_embeddings(client):
    """Similar items share the taste, similar users can be filtered, embeddings give the score."""
    await fill(client, "near")
    await train_and_publish(client, "near")

    items = await client.similar_items("near", "i9", page_size=5, return_fields=["genres"])
    users = await client.similar_users("near", "u9", page_size=5, filter="age < 40")
    stored = await client.embeddings("near", items=["i9", "none such"], users=["u9"])
    best = await client.recommend("near", user="u9", include_seen=True, page_size=200)

    product = sum(a * b for a, b in zip(stored.items["i9"], stored.users["u9"], strict=True))
    scores = {hit.id: hit.score for hit in best.hits}
    assert all(hit.fields["genres"] == ["Comedy"] for hit in items.hits[:3])
    assert "i9" not in {hit.id for hit in items.hits}
    assert users.hits
    assert all(int(hit.id[1:]) < 20 for hit in users.hits)
    assert list(stored.items) == ["i9"]
    assert scores["i9"] == pytest.approx(product, rel=1e-3, abs=1e-4)


async def test_batches_equal_single_calls(client):
    """BatchRecommend answers each subject as Recommend does, by one release."""
    await fill(client, "batched")
    await train_and_publish(client, "batched")
    users = [f"u{n}" for n in range(12)] + ["nobody"]

    batch = await client.batch_recommend("batched", users=users, page_size=7)
    single = [await client.recommend("batched", user=user, page_size=7) for user in users]

    assert [[hit.id for hit in one.hits] for one in batch] == [
        [hit.id for hit in one.hits] for one in single
    ]
    assert len({one.release_id for one in batch}) == 1


async def test_updates_follow_and_rollback_serves(client):
    """An item's new field filters within seconds; a deleted item goes; the old release serves."""
    await fill(client, "followed")
    first = await train_and_publish(client, "followed")
    second = await train_and_publish(client, "followed")
    await client.upsert_items("followed", [Entity("i9", {"title": "New", "year": 2099})])
    await client.delete_items("followed", ["i13"])

    async def future() -> list[str]:
        answer = await client.recommend(
            "followed", user="u1", filter="year == 2099", include_seen=True
        )
        return [hit.id for hit in answer.hits]

    await until(future, ["i9"])
    await client.activate(first)
    await until(future, ["i9"])
    answer = await client.recommend("followed", user="u1", page_size=200, include_seen=True)

    assert answer.release_id == first != second
    assert "i13" not in {hit.id for hit in answer.hits}


async def until(ask, expected) -> None:
    """Ask until the answer is as expected, for at most ten seconds."""
    async with asyncio.timeout(10):
        while await ask() != expected:  # noqa: ASYNC110 - another process answers
            await asyncio.sleep(0.05)


async def test_a_cancelled_training_ends(client):
    """A cancelled operation is done soon, as CANCELLED, and another can start."""
    await fill(client, "cancelled")
    training = await client.train("cancelled", als={"embedding_size": 512, "epochs": 1000})
    async for progress in training.watch():
        if progress.epochs:
            break

    await training.cancel()

    with pytest.raises(RpcError) as fault:
        await training.result(15)
    assert fault.value.reason == "OPERATION_CANCELLED"
    await train_and_publish(client, "cancelled")


async def test_training_without_data_fails_clearly(client):
    """A model without data is a failed precondition that says what is missing."""
    await client.create_catalog("empty", event_types=["watch"])

    with pytest.raises(RpcError) as fault:
        await (await client.train("empty", als={})).result(LONG_S)

    assert fault.value.code.name == "FAILED_PRECONDITION"
    assert fault.value.reason == "NO_TRAINING_DATA"


async def test_a_bad_filter_names_the_column(client):
    """The error of a filter points at the place."""
    await fill(client, "misfiltered")
    await train_and_publish(client, "misfiltered")

    with pytest.raises(RpcError) as fault:
        await client.recommend("misfiltered", user="u1", filter='year >= "old"')

    assert fault.value.code.name == "INVALID_ARGUMENT"
    assert fault.value.reason == "INVALID_FILTER"
    assert fault.value.metadata["column"] == "9"
