"""Items by what they say, against exact scoring of every text."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from milvine.api import build_server
from milvine.client import Client, RpcError
from milvine.domain.entity import Entity, Side
from milvine.domain.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from milvine.domain.hit import Source
from milvine.domain.query import Selection, TextQuery, UserSubject, Weights
from milvine.text import text_encoder
from tests.integration.api.conftest import RecordsOnly
from tests.integration.retrieval.shop import GROUPS, TIMEOUT_S, Shop, learned, new
from tests.integration.world import make_world, publish

ALL = [*map(learned, range(120)), *map(new, range(12))]
QUERY = TextQuery("a murder, and a detective 25")


async def found(shop, query=QUERY, **options):
    """What a search finds."""
    selection = Selection(**{"page_size": 10, **options})
    return await shop.text_search().find(shop.catalog.id, query, selection, timeout_s=TIMEOUT_S)


def cosines(query: TextQuery) -> dict[str, float]:
    """The likeness of every item's text to a query's."""
    encoder = text_encoder("hashing")
    (vector,) = encoder.encode([query.text])
    scores = encoder.encode([item.fields["title"] for item in ALL]) @ vector
    return dict(zip((item.id for item in ALL), scores.tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("", lambda _: True),
        ("is_new == true", lambda item: item.fields["is_new"]),
        ("group in [0, 2]", lambda item: item.fields["group"] != 1),
        ('title like "planet%"', lambda item: item.fields["group"] == 2),
        ("group == 7", lambda _: False),
    ],
)
async def test_hits_are_the_exact_best(shop, text, keeps):
    """Under any filter: items with a vector of the model and without."""
    answer = await found(shop, filter=text, return_fields=("title",))
    scores = cosines(QUERY)
    kept = sorted((scores[item.id] for item in ALL if keeps(item)), reverse=True)[:10]
    np.testing.assert_allclose([hit.score for hit in answer.hits], kept, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([scores[hit.id] for hit in answer.hits], kept, rtol=1e-4, atol=1e-5)
    titles = {item.id: item.fields["title"] for item in ALL}
    assert all(hit.fields == {"title": titles[hit.id]} for hit in answer.hits)
    assert (answer.source, answer.is_short) == (Source.TEXT, len(kept) < 10)
    assert answer.release_id == shop.release.id


async def test_excluded_items_are_not_found(shop):
    """Neither those that are named, nor, where asked for, those of the history."""
    first, *others = (await found(shop)).hits
    rest = await found(shop, exclude_ids=frozenset([first.id]), page_size=9)
    assert first.id not in {hit.id for hit in rest.hits}
    assert [hit.score for hit in rest.hits] == pytest.approx([hit.score for hit in others])
    query = replace(QUERY, subject=UserSubject("reader 1"))
    seen = {hit.id for hit in (await found(shop, query, include_seen=True)).hits}
    unseen = {hit.id for hit in (await found(shop, query, page_size=100)).hits}
    history = shop.stores.records.interactions.history(shop.catalog.id, ["reader 1"])
    assert unseen.isdisjoint(history["item_id"].to_pylist())
    assert not seen.isdisjoint(history["item_id"].to_pylist())


async def test_a_search_for_someone_prefers_what_suits_them(shop):
    """The same words, another order: readers find what their group reads first."""
    words = TextQuery("wizard detective alien")
    for user in range(3):
        query = replace(words, subject=UserSubject(f"reader {user}"))
        answer = await found(shop, query, include_seen=True, page_size=12)
        assert answer.source is Source.PERSONAL
        groups = [int(hit.id.split()[1]) % 3 for hit in answer.hits]
        assert groups.count(user) > 6
        scores = [hit.score for hit in answer.hits]
        assert scores == sorted(scores, reverse=True)


async def test_weights_say_what_counts(shop):
    """With all weight on the text the order is the text's; with all on the fit, the reader's."""
    someone = replace(QUERY, subject=UserSubject("reader 0"))
    by_text = await found(shop, replace(someone, fusion=Weights(1.0, 0.0)), include_seen=True)
    scores = cosines(QUERY)
    assert [scores[hit.id] for hit in by_text.hits] == pytest.approx(
        sorted(scores.values(), reverse=True)[:10], abs=1e-5
    )
    by_fit = await found(shop, replace(someone, fusion=Weights(0.0, 1.0)), include_seen=True)
    assert {int(hit.id.split()[1]) % 3 for hit in by_fit.hits} == {0}


async def test_popularity_stands_in_for_an_unknown_subject(shop):
    """As in recommendations, and said so."""
    answer = await found(shop, replace(QUERY, subject=UserSubject("a stranger")))
    assert answer.source is Source.POPULAR
    assert len(answer.hits) == 10


async def test_texts_follow_their_items(shop):
    """What is written, changed, emptied or deleted while a release serves is found as it is."""
    words = TextQuery("submarine")
    await shop.upsert(
        Entity("s1", {"title": "The Submarine", "group": 9}),
        Entity(learned(0).id, {"title": "Submarine, again", "group": 9}),
        Entity("s2", {"title": "", "group": 9}),
    )
    ours = {"filter": "group == 9", "return_fields": ("title",)}
    answer = await found(shop, words, **ours)
    assert {hit.id for hit in answer.hits} == {"s1", learned(0).id}
    assert min(hit.score for hit in answer.hits) > 0.3
    await shop.upsert(Entity("s1", {"group": 9}), Entity("s2", {"title": "submarines", "group": 9}))
    assert {hit.id for hit in (await found(shop, words, **ours)).hits} == {"s2", learned(0).id}
    delete = shop.stores.records.entities.delete
    await asyncio.to_thread(delete, shop.catalog.id, Side.ITEM, ["s2", learned(0).id])
    await shop.follow()
    assert not (await found(shop, words, **ours)).hits


async def test_a_client_searches(shop):
    """Over gRPC: texts, filters with parameters, fields, someone, and what is wrong."""
    services = RecordsOnly(shop.stores.records, text_search=shop.text_search())
    server = build_server(services)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Client(address) as client:
        answer = await client.search_items(
            shop.catalog.id,
            "detective story",
            filter="is_new == {new}",
            filter_params={"new": True},
            return_fields=["title"],
            page_size=3,
        )
        assert [hit.fields["title"] for hit in answer.hits] == [GROUPS[1]] * 3
        assert not answer.is_short
        assert not answer.is_popular
        options = {"user": "reader 0", "weights": (0.0, 1.0)}
        suited = await client.search_items(shop.catalog.id, "detective", **options)
        assert {int(hit.id.split()[1]) % 3 for hit in suited.hits} == {0}
        stranger = await client.search_items(shop.catalog.id, "detective", user="a stranger")
        assert stranger.is_popular
        with pytest.raises(RpcError) as caught:
            await client.search_items(shop.catalog.id, "detective", filter="nothing == 1")
        assert caught.value.reason == "INVALID_FILTER"
    await server.stop(None)


async def test_bad_searches(shop):
    """Each says what is wrong."""
    with pytest.raises(InvalidArgument, match="says nothing"):
        await found(shop, TextQuery(" \u0301"))
    with pytest.raises(InvalidArgument, match="nothing_like_it"):
        await found(shop, filter="nothing_like_it == 1")
    with pytest.raises(InvalidArgument, match="return_fields"):
        await found(shop, return_fields=("nothing",))
    with pytest.raises(NotFound):
        await found(shop, release_id="none")


async def test_a_release_without_texts(stores):
    """Where no field is to be embedded, the error says what to do."""
    world = await make_world(stores)
    release = await publish(stores, world, f"textless_{world.catalog.id}")
    assert release.text is None
    shop = Shop(stores, world.catalog, release)
    with pytest.raises(FailedPrecondition, match="embed_text") as caught:
        await found(shop)
    assert caught.value.reason is Reason.NO_TEXT_INDEX
