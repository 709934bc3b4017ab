"""Models whose network ranks anew what was retrieved: over gRPC, against numpy."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from milvine.api import build_server
from milvine.client import Boost, Client, Ranking, pages
from milvine.domain.catalog import IndexKind, VectorIndex
from milvine.domain.model import ModelConfig
from milvine.filters import parse
from milvine.models.base import MOST_RERANKED
from milvine.models.histories import history_of
from milvine.retrieval import ActiveReleases, People, Popularity, Retriever
from tests.filter_oracle import evaluate
from tests.integration.api.conftest import RecordsOnly
from tests.integration.conftest import open_stores
from tests.integration.world import FIELDS, make_world, publish

CONFIG = ModelConfig("neural_cf", {"embedding_size": 8, "network_size": 8, "epochs": 30})


@pytest.fixture(scope="module", params=[IndexKind.FLAT, IndexKind.HNSW])
def world(request, urls, records):
    """A published world of more items than are ranked anew; the tests only ask."""

    async def make():
        async with open_stores(urls, records) as stores:
            made = await make_world(stores, index=VectorIndex(request.param), config=CONFIG)
            await publish(stores, made, f"r{made.catalog.id}")
            return made

    return asyncio.run(make())


@pytest.fixture
async def client(stores):
    """A client of the API over the stores."""
    records = stores.records
    releases = ActiveReleases(records, stores.artifacts, refresh_s=0.001)
    people = People(records, staleness_s=0)
    retriever = Retriever(records, people, stores.vectors, releases, Popularity(records))
    server = build_server(RecordsOnly(records, retriever=retriever))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Client(address) as made:
        yield made
    await server.stop(None)


def whole_scores(world, user, ids, most=MOST_RERANKED):
    """The scores of items: by the whole model for the best, and below these for the others."""
    served = world.served
    history = history_of(world.events_of[user], world.catalog, served.feedback, items=served.items)
    rows = served.items.rows(ids)
    inner = (served.item_vectors[rows] @ served.encoder.encode(history)[0]).astype(np.float64)
    order = np.argsort(-inner, kind="stable")
    head, tail = order[:most], order[most:]
    scores = inner.copy()
    scores[head] += served.scorer.gains(served.scorer.read(history), rows[head][None])[0]
    if len(tail):
        scores[tail] -= max(0.0, inner[tail].max() - scores[head].min())
    return dict(zip(ids, scores.tolist(), strict=True))


def allowed(world, user, filter_=""):
    """The items that may be recommended."""
    tree = parse(filter_, {}, FIELDS)
    known = sorted(set(world.served.items.ids.to_pylist()) - world.seen[user])
    return [i for i in known if evaluate(tree, world.items[i].fields)]


def assert_best(hits, scores, count):
    """The best by score, in order; equal ones may change places."""
    expected = sorted(scores.values(), reverse=True)[:count]
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-4)
    assert [scores[hit.id] for hit in hits] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("filter_", ["", "year >= 1990", 'array_contains(genres, "Comedy")'])
async def test_recommendations_are_ranked_by_the_whole_model(client, world, filter_):
    """The network's order, among what matches and was not seen."""
    scores = whole_scores(world, "user 3", allowed(world, "user 3", filter_))
    found = await client.recommend(world.catalog.id, user="user 3", filter=filter_, page_size=25)
    assert_best(found.hits, scores, 25)


async def test_the_network_changes_the_order(client, world):
    """The hits are not simply those of the inner product."""
    changed = 0
    for user in ("user 1", "user 2", "user 3"):
        inner, ids = world.scores(user), allowed(world, user)
        found = await client.recommend(world.catalog.id, user=user, page_size=25)
        by_inner = sorted(ids, key=lambda i: -inner[i])[:25]
        changed += [hit.id for hit in found.hits] != by_inner
    assert changed


async def test_pages_are_parts_of_one_list(client, world):
    """Nothing comes twice or is left out, over the end of what is ranked anew."""
    scores = whole_scores(world, "user 9", allowed(world, "user 9"))
    found = [
        hit
        async for page in pages(client.recommend, world.catalog.id, user="user 9", page_size=60)
        for hit in page.hits
    ]
    assert len(found) == len(scores) > MOST_RERANKED
    assert len({hit.id for hit in found}) == len(found)
    assert_best(found, scores, len(found))


async def test_one_large_page_is_the_same_list(client, world):
    """More hits than are ranked anew: the others follow."""
    scores = whole_scores(world, "user 9", allowed(world, "user 9"))
    found = await client.recommend(world.catalog.id, user="user 9", page_size=1_000)
    assert_best(found.hits, scores, len(scores))


async def test_batches_and_everybody_get_the_same(client, world):
    """BatchRecommend and RecommendAll answer as Recommend does, each user by an own history."""
    users = ["user 1", "nobody", "user 2"]
    batch = await client.batch_recommend(world.catalog.id, users, page_size=7)
    every = {
        one.user_id: one
        async for page in client.recommend_all(world.catalog.id, page_size=7)
        for one in page.users
    }
    for user, answer in zip(users, batch, strict=True):
        if user != "nobody":
            scores = whole_scores(world, user, allowed(world, user))
            assert_best(answer.hits, scores, 7)
            assert_best(every[user].hits, scores, 7)
    assert batch[1].is_popular


async def test_named_items_are_ranked_by_the_whole_model(client, world):
    """All of them, however many they are."""
    ids = world.served.items.ids.to_pylist()
    found = await client.rank_items(world.catalog.id, ids, user="user 5")
    assert_best(found.hits, whole_scores(world, "user 5", ids, most=len(ids)), len(ids))


async def test_boosts_come_after(client, world):
    """A boost multiplies the network's scores, and divides those below 0."""
    ids = allowed(world, "user 4")
    scores = whole_scores(world, "user 4", ids)
    boosted = {
        i: s if world.items[i].fields["year"] < 2000 else s * 3 if s > 0 else s / 3
        for i, s in scores.items()
    }
    ranking = Ranking(boosts=[Boost(3.0, "year >= 2000")])
    found = await client.recommend(
        world.catalog.id, user="user 4", ranking=ranking, page_size=40, explain=True
    )
    assert_best(found.hits, boosted, 40)
    for hit in found.hits:
        assert hit.explanation.base_score == pytest.approx(scores[hit.id], abs=1e-4)


async def test_explanations_tell_by_which_score_it_was_retrieved(client, world):
    """The base is the whole model's, and the inner product stands beside it."""
    inner = world.scores("user 6")
    found = await client.recommend(world.catalog.id, user="user 6", explain=True)
    for hit in found.hits:
        assert hit.explanation.base_score == hit.score
        assert hit.explanation.retrieval_score == pytest.approx(inner[hit.id], abs=1e-4)
        assert hit.explanation.contributions
    (unknown, *_) = (await client.recommend(world.catalog.id, user="nobody", explain=True)).hits
    assert unknown.explanation.retrieval_score is None


async def test_a_vector_is_ranked_by_inner_products(client, world):
    """Where nothing but a point is known, there is nothing that the network could read."""
    vector = np.linspace(-1, 1, 8).tolist()
    found = await client.recommend(world.catalog.id, vector=vector, page_size=20)
    scores = world.served.item_vectors @ np.array(vector, np.float32)
    assert_best(
        found.hits, dict(zip(world.served.items.ids.to_pylist(), scores.tolist(), strict=True)), 20
    )
