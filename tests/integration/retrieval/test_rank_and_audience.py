"""Ranking of named items, audiences, explanations and examples over gRPC, against numpy."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from milvine.api import build_server
from milvine.client import Boost, Client, Ranking, RpcError
from milvine.domain.catalog import IndexKind, VectorIndex
from milvine.domain.entity import Side
from milvine.domain.query import ExamplesSubject
from milvine.filters import parse
from milvine.retrieval import ActiveReleases, People, Popularity, Retriever, audience
from milvine.retrieval.examples import taste_of
from tests.filter_oracle import evaluate
from tests.integration.api.conftest import RecordsOnly
from tests.integration.conftest import open_stores
from tests.integration.world import World, make_world, publish

KINDS = [IndexKind.FLAT, IndexKind.HNSW]


@pytest.fixture(scope="module")
def worlds(urls, records):
    """A published world on an exact index, and one on a graph; the tests only ask."""

    async def make():
        async with open_stores(urls, records) as stores:
            made = {}
            for kind in KINDS:
                world = await make_world(stores, index=VectorIndex(kind))
                await publish(stores, world, f"r{world.catalog.id}")
                made[kind] = world
            return made

    return asyncio.run(make())


@pytest.fixture(params=KINDS)
def world(request, worlds) -> World:
    """A published world."""
    return worlds[request.param]


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


async def users_of(client, world):
    """The stored vectors of all users."""
    found = await client.embeddings(world.catalog.id, users=list(world.seen))
    return {user: np.array(vector) for user, vector in found.users.items()}


def item_vector(world, item):
    """The vector of an item."""
    return world.served.item_vectors[world.served.items.rows([item])[0]]


def in_order(scores, ids):
    """Ids by score, best first."""
    return sorted(ids, key=lambda i: -scores[i])


def assert_ranked(hits, expected, scores):
    """The same scores in the same order: equal scores may change places."""
    assert [hit.score for hit in hits] == pytest.approx([scores[i] for i in expected], abs=1e-4)
    assert [scores[hit.id] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-4)


async def failed(call):
    """The error of a call."""
    with pytest.raises(RpcError) as raised:
        await call
    return raised.value


async def test_named_items_are_ranked_by_score(client, world):
    """Each named item once, seen ones too, best first; the others are named in their order."""
    scores = world.scores("user 7")
    ids = world.served.items.ids.to_pylist()[::3]
    asked = ["nope", *ids, "?", *ids[:5], "nope"]

    found = await client.rank_items(world.catalog.id, asked, user="user 7", return_fields=["*"])

    assert found.missing_ids == ("nope", "?")
    assert not found.is_popular
    assert sorted(hit.id for hit in found.hits) == sorted(ids)
    assert_ranked(found.hits, in_order(scores, ids), scores)
    for hit in found.hits:
        fields = {
            n: list(v) if isinstance(v, tuple) else v for n, v in world.items[hit.id].fields.items()
        }
        assert hit.fields == fields


async def test_ten_thousand_ids_are_ranked(client, world):
    """As many ids as are allowed, mostly unknown, are told apart."""
    known = world.served.items.ids.to_pylist()
    asked = [*(f"x{n}" for n in range(10_000 - len(known))), *known]

    found = await client.rank_items(world.catalog.id, asked, history=known[:3])

    assert len(found.hits) == len(known)
    assert len(found.missing_ids) == 10_000 - len(known)


async def test_strangers_get_popular_items_first(client, world):
    """Of whom nothing is known, items are ranked by popularity, and the answer says so."""
    ids = world.served.items.ids.to_pylist()[:50]

    for subject in ({"user": "nobody"}, {"liked": ["never seen"]}):
        found = await client.rank_items(world.catalog.id, ids, **subject)

        counts = {i: sum(i in seen for seen in world.seen.values()) for i in ids}
        assert found.is_popular
        # Counts decay by a month, and the events are seconds apart.
        assert_ranked(found.hits, in_order(counts, ids), counts)


async def test_deleted_items_are_missing(client, stores):
    """What was deleted since is missing, and has no audience."""
    world = await make_world(stores, index=VectorIndex(IndexKind.FLAT))
    await publish(stores, world, f"r{world.catalog.id}")
    gone, left = world.served.items.ids.to_pylist()[:2]
    release = stores.records.releases.get(f"r{world.catalog.id}")
    await stores.vectors.delete(release.collection(Side.ITEM), [gone], timeout_s=20)

    found = await client.rank_items(world.catalog.id, [gone, left], user="user 1")
    deadline = asyncio.get_running_loop().time() + 20
    # Reads may see a deletion some seconds later.
    while not found.missing_ids and asyncio.get_running_loop().time() < deadline:
        found = await client.rank_items(world.catalog.id, [gone, left], user="user 1")

    assert found.missing_ids == (gone,)
    error = await failed(client.find_audience(world.catalog.id, gone))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")


@pytest.mark.parametrize("text", ["", "age >= 60", "age in [20, 21, 22, 33]", "age > 500"])
@pytest.mark.parametrize("include_seen", [False, True])
async def test_an_audience_equals_brute_force(client, world, text, include_seen):
    """The best users by inner product that match, without those who had the item."""
    item = max(world.items, key=lambda i: sum(i in seen for seen in world.seen.values()))
    vectors = await users_of(client, world)
    scores = {user: float(vector @ item_vector(world, item)) for user, vector in vectors.items()}
    ages = {f"user {n}": {"age": 20 + n} for n in range(60)}
    tree = parse(text, {}, world.catalog.user_fields)
    allowed = [
        user
        for user in scores
        if (include_seen or item not in world.seen[user])
        and (tree is None or evaluate(tree, ages[user]))
    ]

    found = await client.find_audience(
        world.catalog.id,
        item,
        page_size=12,
        filter=text,
        include_seen=include_seen,
        return_fields=["age"],
    )

    expected = in_order(scores, allowed)[:12]
    assert_ranked(found.hits, expected, scores)
    assert found.is_short == (len(allowed) < 12)
    assert all(hit.fields == ages[hit.id] for hit in found.hits)


async def test_an_audience_of_everyone_left(client, world):
    """Asked for more than there are, all who did not have the item come, and it says so."""
    item = next(iter(world.seen["user 0"]))
    found = await client.find_audience(world.catalog.id, item, page_size=100)
    assert {hit.id for hit in found.hits} == {u for u, s in world.seen.items() if item not in s}
    assert found.is_short


@pytest.mark.parametrize("limits", [(8, 16), (16_384,)])
async def test_an_audience_is_the_same_whichever_way_it_is_found(
    client, world, limits, monkeypatch
):
    """A search that widens, one that runs dry, and scoring of all find the same users."""
    monkeypatch.setattr(audience, "LIMITS", limits)
    monkeypatch.setattr(audience, "WIDEST", limits[-1:])
    monkeypatch.setattr(audience, "FEW_USERS", 0)
    item = max(world.items, key=lambda i: sum(i in seen for seen in world.seen.values()))
    vectors = await users_of(client, world)
    scores = {user: float(vector @ item_vector(world, item)) for user, vector in vectors.items()}
    allowed = [user for user in scores if item not in world.seen[user]]

    for text in ("", "age >= 20"):
        found = await client.find_audience(world.catalog.id, item, page_size=15, filter=text)
        assert_ranked(found.hits, in_order(scores, allowed)[:15], scores)


async def test_pages_of_an_audience_go_on(client, world):
    """Pages together are the one long list: no user comes twice, none is skipped."""
    item = next(iter(world.seen["user 0"]))
    whole = await client.find_audience(world.catalog.id, item, page_size=100)
    found, token = [], ""
    while not found or token:
        page = await client.find_audience(world.catalog.id, item, page_size=9, page_token=token)
        found += page.hits
        token = page.next_page_token
    expected = [hit.score for hit in whole.hits]
    assert [hit.score for hit in found] == pytest.approx(expected, abs=1e-5)
    assert sorted(hit.id for hit in found) == sorted(hit.id for hit in whole.hits)


async def test_an_audience_needs_an_item_of_the_release(client, world):
    """An unknown item has none; its id and the release are told."""
    error = await failed(client.find_audience(world.catalog.id, "nope"))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")
    assert error.metadata == {"item_id": "nope", "release_id": f"r{world.catalog.id}"}


async def test_contributions_are_scores_less_those_without(client, world):
    """Each amount is by how much the score falls when the item leaves the history."""
    history = sorted(world.seen["user 9"])[:12]
    found = await client.recommend(world.catalog.id, history=history, explain=True, page_size=3)
    fewer = {
        item: await client.rank_items(
            world.catalog.id,
            [hit.id for hit in found.hits],
            history=[other for other in history if other != item],
        )
        for item in history
    }
    for hit in found.hits:
        assert hit.explanation.base_score == pytest.approx(hit.score, abs=1e-5)
        amounts = {
            item: hit.score - next(h.score for h in ranked.hits if h.id == hit.id)
            for item, ranked in fewer.items()
        }
        told = dict(hit.explanation.contributions)
        largest = sorted(amounts, key=lambda i: -abs(amounts[i]))[:10]
        assert list(map(abs, told.values())) == pytest.approx(
            [abs(amounts[i]) for i in largest], abs=1e-4
        )
        for item, amount in told.items():
            assert amount == pytest.approx(amounts[item], abs=1e-4)


async def test_a_history_of_one_item_explains_the_whole_score(client, world):
    """With one item, what it contributes is the score, for a family without biases."""
    item = next(iter(world.seen["user 3"]))
    ids = world.served.items.ids.to_pylist()[:20]

    found = await client.rank_items(world.catalog.id, ids, history=[item], explain=True)

    for hit in found.hits:
        assert hit.explanation.contributions == ((item, pytest.approx(hit.score, abs=1e-5)),)


async def test_a_users_recommendations_are_explained_by_their_history(client, world):
    """The ranking is that without explanations; contributions name items of the history."""
    plain = await client.recommend(world.catalog.id, user="user 5")
    told = await client.recommend(world.catalog.id, user="user 5", explain=True)

    assert [hit.id for hit in told.hits] == [hit.id for hit in plain.hits]
    assert [hit.score for hit in told.hits] == pytest.approx([h.score for h in plain.hits])
    assert all(hit.explanation is None for hit in plain.hits)
    for hit in told.hits:
        items = [item for item, _ in hit.explanation.contributions]
        assert len(items) == 10
        assert world.seen["user 5"].issuperset(items)


async def test_popular_items_are_explained_by_their_count(client, world):
    """A stranger's hits have their counts as the base, and nothing contributes."""
    found = await client.recommend(world.catalog.id, user="nobody", explain=True)
    for hit in found.hits:
        assert hit.explanation.base_score == hit.score
        assert hit.explanation.contributions == ()


async def test_boosts_are_explained_beside_the_score_before_them(client, world):
    """A boost that applies is told with its factor: what it makes of the base is the score."""
    ranking = Ranking([Boost(0.5, "year >= 1990"), Boost(3.0, "year < 1990")])
    ids = world.served.items.ids.to_pylist()[:30]
    plain = world.scores("user 6")

    listed = await client.recommend(
        world.catalog.id, user="user 6", ranking=ranking, explain=True, return_fields=["year"]
    )
    named = await client.rank_items(
        world.catalog.id, ids, user="user 6", ranking=ranking, explain=True, return_fields=["year"]
    )

    assert len(named.hits) == len(ids)
    for hit in (*listed.hits, *named.hits):
        base = hit.explanation.base_score
        ((index, factor),) = hit.explanation.boosts
        assert (index, factor) == ((0, 0.5) if hit.fields["year"] >= 1990 else (1, 3.0))
        assert base == pytest.approx(plain[hit.id], abs=1e-4)
        assert hit.score == pytest.approx(base / factor if base < 0 else base * factor, abs=1e-4)
        assert len(hit.explanation.contributions) == 10


async def test_a_taste_by_examples(client, world):
    """Recommend ranks by the taste's vector, without the examples; the explanation names them."""
    liked = {i: 1.0 + n for n, i in enumerate(sorted(world.seen["user 11"])[:4])}
    disliked = {i: 0.5 for i in sorted(world.seen["user 13"])[:2] if i not in liked}
    vector = taste_of(world.served, ExamplesSubject(liked, disliked)).vector()
    ids = world.served.items.ids.to_pylist()
    scores = dict(zip(ids, (world.served.item_vectors @ vector).tolist(), strict=True))

    found = await client.recommend(
        world.catalog.id, liked=liked, disliked=disliked, page_size=15, explain=True
    )

    allowed = [i for i in ids if i not in liked and i not in disliked]
    assert not found.is_popular
    assert_ranked(found.hits, in_order(scores, allowed)[:15], scores)
    assert {i for i, _ in found.hits[0].explanation.contributions} == {*liked, *disliked}


async def test_bad_subjects_name_the_example(client, world):
    """Unknown weights and contradictions are told by their place."""
    error = await failed(client.recommend(world.catalog.id, liked={"a": -1.0}))
    assert [v.field for v in error.violations] == ["subject.examples.positives[0].weight"]
    error = await failed(client.recommend(world.catalog.id, liked=["a"], disliked=["b", "a"]))
    assert [v.field for v in error.violations] == ["subject.examples.negatives[1].item_id"]
