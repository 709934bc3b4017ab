"""Items without interactions, placed by what they say, in every kind of answer."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from milvine.domain.entity import Side
from milvine.domain.errors import NotFound
from milvine.domain.query import HistorySubject, Selection, UserSubject
from milvine.domain.ranking import Boost, Cap, Factor, Ranking
from tests.integration.retrieval.shop import (
    GROUPS,
    NEW,
    TIMEOUT_S,
    events,
    eventually,
    learned,
    new,
    recommended,
)


async def test_new_items_are_recommended_to_whom_they_suit(shop):
    """A release has every item that says something, and readers get those of their group."""
    assert shop.release.item_count == 132
    retriever = shop.retriever()
    for user in range(3):
        ids = await recommended(shop, retriever, user)
        assert {int(i.split()[1]) % 3 for i in ids} == {user}


async def test_new_items_are_found_exactly(shop):
    """With a filter and without, lists are those of the inner products with stored vectors."""
    retriever = shop.retriever()
    every = [*(learned(n).id for n in range(120)), *(new(n).id for n in range(12))]
    vectors = await shop.vectors_of(retriever, *every)
    found = await retriever.embeddings(shop.catalog.id, [], ["reader 1"], timeout_s=TIMEOUT_S)
    scores = {i: float(vector @ found.users["reader 1"]) for i, vector in vectors.items()}
    for selection, ids in ((NEW, every[120:]), (replace(NEW, filter=""), every)):
        best = await recommended(shop, retriever, 1, replace(selection, include_seen=True))
        wanted = sorted((scores[i] for i in ids), reverse=True)[:4]
        np.testing.assert_allclose([scores[i] for i in best], wanted, rtol=1e-4)


async def test_an_item_written_while_serving_is_placed(shop):
    """It comes with its text, moves with it, and goes with it; a process that runs sees all."""
    retriever, id_, every = shop.retriever(), new(300).id, replace(NEW, page_size=20)
    await recommended(shop, retriever, 0)
    await shop.upsert(new(300), new(301, title=""))
    only = replace(NEW, filter='is_new == true and title like "dragon%"', page_size=20)
    await eventually(lambda: recommended(shop, retriever, 0, only), lambda ids: id_ in ids)
    before = await shop.vectors_of(retriever, id_, new(301).id)
    assert before.keys() == {id_}

    await shop.upsert(new(300, title=GROUPS[1]))
    await eventually(
        lambda: shop.vectors_of(retriever, id_),
        lambda now: np.linalg.norm(now[id_] - before[id_]) > 0.1,
    )
    await eventually(lambda: recommended(shop, retriever, 1, every), lambda ids: id_ in ids)

    await shop.upsert(new(300, title=" "))
    await eventually(lambda: shop.vectors_of(retriever, id_), lambda now: not now)
    await eventually(lambda: recommended(shop, retriever, 1, every), lambda ids: id_ not in ids)


async def test_a_deleted_new_item_is_gone(shop):
    """What is deleted while it serves is recommended no more."""
    retriever = shop.retriever()
    (first, *_) = await recommended(shop, retriever, 0)
    delete = shop.stores.records.entities.delete
    await asyncio.to_thread(delete, shop.catalog.id, Side.ITEM, [first])
    await shop.follow()
    every = replace(NEW, page_size=20)
    await eventually(lambda: recommended(shop, retriever, 0, every), lambda ids: first not in ids)


async def test_pages_go_on_in_another_process(shop):
    """Processes number new items as they come to know them; no page repeats or loses one."""
    first = shop.retriever()
    await recommended(shop, first, 0)
    await shop.upsert(new(302), new(299))
    await recommended(shop, first, 0)
    await shop.upsert(new(298))
    second = shop.retriever()
    selection = replace(NEW, page_size=5, fingerprint=b"f" * 32)
    shown, token = [], ""
    for retriever in itertools.cycle((first, second)):
        (page,) = await retriever.recommend(
            shop.catalog.id,
            [UserSubject("reader 0")],
            replace(selection, page_token=token),
            timeout_s=TIMEOUT_S,
        )
        shown += [hit.id for hit in page.hits]
        token = page.next_page_token
        if not token:
            break
    assert sorted(shown) == sorted(new(n).id for n in (*range(12), 298, 299, 302))


async def test_rankings_know_new_items(shop):
    """Boosts and caps see the fields of new items, also of those that came while they ran."""
    retriever = shop.retriever()
    boosts = (Boost(Factor(100.0), "is_new == true"),)
    ranking = Ranking(boosts=boosts, caps=(Cap("group", 2),))
    selection = Selection(page_size=6, ranking=ranking)
    ids = await recommended(shop, retriever, 0, selection)
    assert sorted(int(i.split()[1]) % 3 for i in ids) == [0, 0, 1, 1, 2, 2]
    await shop.upsert(*(new(n) for n in range(400, 430)))
    ids = await recommended(shop, retriever, 0, selection)
    assert sorted(int(i.split()[1]) % 3 for i in ids) == [0, 0, 1, 1, 2, 2]


async def test_new_items_are_ranked_and_have_neighbours(shop):
    """RankItems, SimilarItems and FindAudience take a new item as any other."""
    retriever = shop.retriever()
    named = [learned(0).id, *(new(n).id for n in range(3))]
    ranked = await retriever.rank(
        shop.catalog.id, UserSubject("reader 2"), named, Selection(), timeout_s=TIMEOUT_S
    )
    assert ranked.hits[0].id == new(2).id
    assert not ranked.missing_ids
    similar = await retriever.similar(
        Side.ITEM, shop.catalog.id, new(1).id, Selection(page_size=5), timeout_s=TIMEOUT_S
    )
    assert {int(hit.id.split()[1]) % 3 for hit in similar.hits} == {1}
    reached = await retriever.audience(
        shop.catalog.id, new(1).id, Selection(page_size=5), timeout_s=TIMEOUT_S
    )
    assert {int(hit.id.split()[1]) % 3 for hit in reached.hits} == {1}


async def test_a_history_of_new_items_alone_is_unknown(shop):
    """The model learned nothing of them, so who had only new items gets popular ones."""
    told = events().slice(0, 1).set_column(2, "item_id", pa.array([new(0).id]))
    (answer,) = await shop.retriever().recommend(
        shop.catalog.id, [HistorySubject(told)], Selection(page_size=3), timeout_s=TIMEOUT_S
    )
    assert answer.source == "POPULAR"
    assert new(0).id not in {hit.id for hit in answer.hits}


async def test_an_item_that_says_nothing_has_no_vector(shop):
    """Asked for by its id, it is not found, as every item without a vector."""
    await shop.upsert(new(303, title=""))
    with pytest.raises(NotFound):
        await shop.retriever().similar(
            Side.ITEM, shop.catalog.id, new(303).id, Selection(), timeout_s=TIMEOUT_S
        )
