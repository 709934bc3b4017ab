"""Every family through the whole service: it is trained, published, asked and changed alike."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import grpc
import numpy as np
import pytest
import pytest_asyncio

from milvine.client import Client, HistoryEvent, Interaction, Item, RpcError
from milvine.models import families
from milvine.v1 import catalog_pb2
from tests.servers.whole import Service, whole_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = datetime(2026, 1, 1, tzinfo=UTC)
SOON_S = 60.0
SIZE = 20
"""The users and the items of each taste."""
TASTES = ("sea", "space")
SETTINGS: dict[str, dict[str, float]] = {
    family: {"embedding_size": 8, "epochs": 10} for family in families
} | {
    "mult_vae": {"embedding_size": 8, "epochs": 30, "learning_rate": 0.01},
    "sasrec": {"embedding_size": 8, "epochs": 30, "learning_rate": 0.01, "dropout": 0.0},
}
RATING = catalog_pb2.EventType(
    name="rating", value_meaning=catalog_pb2.EventType.VALUE_MEANING_RATING, liked_from=3
)
NUMBERS = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory):
    """One service for all tests."""
    async with whole_service(Path(tmp_path_factory.mktemp("families"))) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Service) -> Client:
    """A client of it."""
    return service.client


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=families)
async def served(request, client: Client) -> str:
    """A family whose catalog is served by a model of it; the catalog has its name."""
    family = request.param
    await fill(client, family)
    model = await (await train(client, family, family)).result(SOON_S)
    await (await client.publish(model.model_id)).result(SOON_S)
    return family


async def fill(client: Client, catalog_id: str) -> None:
    """Two tastes: a user rates half of one highly, some of the other low."""
    await client.create_catalog(catalog_id, event_types=[RATING], item_fields={"taste": "STRING"})
    items = [Item(f"{t} {n:02}", {"taste": t}) for t in TASTES for n in range(SIZE)]
    await client.upsert_items(catalog_id, items)
    await client.record(catalog_id, [e for u in range(2 * SIZE) for e in events(u)])


def events(user: int) -> Iterable[Interaction]:
    """What a user did, each event at a time of its own."""
    mine, other = TASTES if user < SIZE else TASTES[::-1]
    rng = np.random.default_rng(user)
    liked, disliked = rng.permutation(SIZE)[:10], rng.permutation(SIZE)[:4]
    rated = [(mine, n, 5.0) for n in liked] + [(other, n, 1.0) for n in disliked]
    for at, (taste, n, value) in enumerate(rated):
        moment = START + timedelta(minutes=at)
        yield Interaction(f"u{user:02}", f"{taste} {n:02}", "rating", value, moment)


async def train(client: Client, catalog_id: str, family: str, **settings: float):
    """Begin a training of a family."""
    return await client.train(catalog_id, **{family: SETTINGS[family] | settings})


def rated(item: str, value: float = 5.0) -> HistoryEvent:
    """An event of a history."""
    return HistoryEvent(item, "rating", value)


async def failed(call) -> RpcError:
    """The error of a call."""
    with pytest.raises(RpcError) as raised:
        await call
    return raised.value


def share(found, taste: str) -> float:
    """The share of hits that are of a taste."""
    return sum(hit.fields["taste"] == taste for hit in found.hits) / len(found.hits)


async def test_recommends_what_fits(client, served):
    """Users get unseen items of their taste, best first, and by a filter those of the other."""
    for user, taste in ((3, "sea"), (SIZE + 3, "space")):
        found = await client.recommend(
            served, user=f"u{user:02}", page_size=8, return_fields=["taste"]
        )
        seen = {event.item_id for event in events(user)}
        assert (len(found.hits), found.is_popular) == (8, False)
        assert not {hit.id for hit in found.hits} & seen
        assert share(found, taste) >= 0.75
        scores = [hit.score for hit in found.hits]
        assert scores == sorted(scores, reverse=True)
        other = TASTES[taste == "sea"]
        found = await client.recommend(
            served, user=f"u{user:02}", filter=f'taste == "{other}"', return_fields=["taste"]
        )
        assert share(found, other) == 1.0
        assert not {hit.id for hit in found.hits} & seen


async def test_a_history_is_folded_in_as_it_was_stored(client, served):
    """An unchanged history gives the stored user vector: asked by user, by events, by vector."""
    stored = await client.embeddings(
        served, items=[f"sea {n:02}" for n in range(SIZE)], users=["u03"]
    )
    vector = np.array(stored.users["u03"])
    history = [HistoryEvent(e.item_id, e.event_type, e.value, e.event_time) for e in events(3)]
    for subject in ({"user": "u03"}, {"history": history}, {"vector": vector.tolist()}):
        found = await client.recommend(
            served,
            **subject,
            page_size=SIZE,
            include_seen=True,
            filter='taste == "sea"',
            explain=True,
        )
        told = {hit.id: _inner_product(hit) for hit in found.hits}
        expected = {item: float(vector @ np.array(v)) for item, v in stored.items.items()}
        assert told == pytest.approx(expected, rel=1e-3, abs=1e-5)


def _inner_product(hit):
    """The score of a hit before a network ranked it anew, where one did."""
    retrieved = hit.explanation.retrieval_score
    return hit.score if retrieved is None else retrieved


async def test_nothing_known_is_answered_by_popularity(client, served):
    """A user without history, unknown items, and what teaches nothing: popular items, said so."""
    subjects = [{"user": "u99"}, {"history": [rated("no such item")]}]
    if served != "ratings_mf":
        subjects.append({"history": [rated("sea 00", 1.0)]})
    for subject in subjects:
        found = await client.recommend(served, **subject, strong=True)
        assert found.is_popular
        assert len(found.hits) == 10


async def test_the_same_seed_gives_the_same_bytes(client, served, service):
    """Two models of the same data, settings and seed have the same weights file."""
    digests = []
    for seed in (5, 5, 6):
        model = await (await train(client, served, served, seed=seed, epochs=3)).result(SOON_S)
        weights = service.artifacts / model.model_id / "weights.safetensors"
        digests.append(hashlib.sha256(weights.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


async def test_a_training_is_cancelled(client, served, service):
    """It ends soon, leaves no model, and its checkpoints and artifact go."""
    before = [model.model_id async for model in client.models(served)]
    training = await train(client, served, served, epochs=1_000)
    async for progress in training.watch():
        if progress.epochs:
            await training.cancel()
            break
    error = await failed(training.result(SOON_S))
    assert (error.code, error.reason) == (grpc.StatusCode.CANCELLED, "OPERATION_CANCELLED")
    assert [model.model_id async for model in client.models(served)] == before
    await swept(service)
    kept = {m.model_id async for c in client.catalogs() async for m in client.models(c.catalog_id)}
    assert {path.name for path in service.artifacts.iterdir()} == kept


async def test_processes_train_the_model_of_one(client):
    """A training that asks for two learns what one learns, fields of items included."""
    await fill(client, "together")
    given = {"two_tower": SETTINGS["two_tower"], "holdout": {"method": "METHOD_NONE"}}
    losses = []
    for number in (1, 2):
        training = await client.train("together", **given, process_count=number)
        losses.append([epoch.loss for epoch in (await training.result(SOON_S)).epochs])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


async def test_a_training_in_processes_is_cancelled(client, service):
    """It ends soon with all its processes, and leaves nothing."""
    await fill(client, "stopped")
    for passes in (0, 1):
        training = await client.train("stopped", bpr={"epochs": 1_000}, process_count=2)
        async for progress in training.watch():
            if progress.stage == "FITTING_HOLDOUT" and len(progress.epochs) >= passes:
                await training.cancel()
                break
        assert (await failed(training.result(SOON_S))).reason == "OPERATION_CANCELLED"
        assert multiprocessing.active_children() == []
    assert [model async for model in client.models("stopped")] == []
    await swept(service)


async def swept(service: Service) -> None:
    """Wait until nothing is left to remove."""
    strays = service.stores.records.strays
    async with asyncio.timeout(SOON_S):
        while await asyncio.to_thread(strays.removable, limit=1):  # noqa: ASYNC110 - a database
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("family", families)
async def test_an_empty_catalog(client, family):
    """There is nothing to learn from, and the error says what to do."""
    catalog_id = f"empty{next(NUMBERS)}"
    await client.create_catalog(catalog_id, event_types=[RATING])
    error = await failed((await train(client, catalog_id, family)).result(SOON_S))
    assert (error.code, error.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "NO_TRAINING_DATA",
    )
    assert "record or import some" in error.message
    assert [model async for model in client.models(catalog_id)] == []


@pytest.mark.parametrize("family", families)
async def test_a_catalog_of_one_item(client, family):
    """The smallest catalog is served: its item is all that there is to recommend."""
    catalog_id = f"one{next(NUMBERS)}"
    await client.create_catalog(catalog_id, event_types=[RATING])
    await client.upsert_items(catalog_id, [Item("i", {})])
    await client.record(catalog_id, [Interaction("u", "i", "rating", 5.0, START)])
    model = await (await train(client, catalog_id, family)).result(SOON_S)
    await (await client.publish(model.model_id)).result(SOON_S)
    asked = [({"user": "u"}, []), ({"user": "new"}, ["i"]), ({"history": [rated("i")]}, [])]
    for subject, ids in asked:
        found = await client.recommend(catalog_id, **subject)
        assert [hit.id for hit in found.hits] == ids
        assert found.is_short


async def test_divergence(client, service):
    """The training fails and says what to change; its best weights are a model to look at."""
    await fill(client, "diverging")
    training = await train(client, "diverging", "bpr", learning_rate=1e30, batch_size=2**20)
    error = await failed(training.result(SOON_S))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TRAINING_DIVERGED")
    assert "lower learning_rate, which is 1e+30" in error.message
    kept = await client.get_model(error.metadata["model_id"])
    assert f"are kept as the model {kept.model_id!r}" in error.message
    assert error.message.startswith(kept.divergence)
    assert 0 < len(kept.epochs) < kept.config.bpr.epochs
    assert [release async for release in client.releases("diverging")] == []
    await swept(service)
    assert not list(service.artifacts.glob("checkpoints-*"))


async def test_divergence_without_weights_to_keep(client):
    """The training fails, and leaves nothing."""
    await fill(client, "lost")
    error = await failed((await train(client, "lost", "als", regularization=1e39)).result(SOON_S))
    assert (error.reason, error.metadata) == ("TRAINING_DIVERGED", {})
    assert [model async for model in client.models("lost")] == []


async def test_order_needs_times(client):
    """A family of the order of events says so where there is none, and how to record it."""
    await client.create_catalog("timeless", event_types=["view"])
    pairs = [(user, user + item) for user in range(4) for item in range(3)]
    seen = [Interaction(f"u{user}", f"i{item}", event_time=START) for user, item in pairs]
    await client.record("timeless", seen)
    error = await failed((await train(client, "timeless", "sasrec")).result(SOON_S))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_TIME_ORDER")
    assert "event_time" in error.message


async def test_a_taste_that_turns_is_followed(client, served):
    """Ten new interactions of the other taste move the list towards it, without retraining."""
    liked = {taste: [f"{taste} {n:02}" for n in range(10)] for taste in TASTES}
    await client.record(served, likes(liked["sea"], day=0))
    before = await preference(client, served, exclude=liked["space"])
    await client.record(served, likes(liked["space"], day=1))
    after = await preference(client, served, exclude=liked["space"])
    assert before < 0.5
    assert after >= before + 0.2


def likes(items: Iterable[str], *, day: int) -> list[Interaction]:
    """Someone who came after the training rates items highly, one after the other."""
    begin = START + timedelta(days=day)
    return [
        Interaction("newcomer", item, "rating", 5.0, begin + timedelta(minutes=at))
        for at, item in enumerate(items)
    ]


async def preference(client: Client, catalog_id: str, *, exclude: Iterable[str]) -> float:
    """How often an unseen item of space comes before one of the sea, over all such pairs."""
    found = await client.recommend(
        catalog_id,
        user="newcomer",
        page_size=100,
        exclude=exclude,
        return_fields=["taste"],
        strong=True,
    )
    is_space = np.array([hit.fields["taste"] == "space" for hit in found.hits])
    space_above = np.cumsum(is_space)[~is_space]
    return float(space_above.mean() / is_space.sum())
