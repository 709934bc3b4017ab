"""Recommendations and neighbours against exact scoring in numpy."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from milvine.domain.catalog import IndexKind, VectorIndex
from milvine.domain.entity import Side
from milvine.domain.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from milvine.domain.hit import Source
from milvine.domain.query import (
    Consistency,
    HistorySubject,
    Selection,
    UserSubject,
    VectorSubject,
)
from milvine.filters import parse
from milvine.records import Records
from milvine.retrieval import ActiveReleases, People, Popularity, Retriever
from tests.filter_oracle import evaluate
from tests.integration.conftest import open_stores
from tests.integration.world import FIELDS, make_world, publish

TIMEOUT_S = 20.0
FILTERS = [
    "",
    'year >= 1990 and array_contains_any(genres, ["Sci-Fi"])',
    'not array_contains(genres, "Drama")',
    "genres is null or year in [1970, 1971]",
    'title like "The%" and year == 1983',
]


@pytest.fixture(scope="module")
def world(urls, records):
    """A published world; the exact index leaves no doubt about the answer.

    The tests share it, for a server takes seconds to publish: each writes of users of its own only.
    """

    async def make():
        async with open_stores(urls, records) as stores:
            made = await make_world(stores, index=VectorIndex(IndexKind.FLAT))
            await publish(stores, made, f"r{made.catalog.id}")
            return made

    return asyncio.run(make())


@pytest.fixture
def retriever(stores):
    """Retrieval that looks the active release up at each call."""
    releases = ActiveReleases(stores.records, stores.artifacts, refresh_s=0.001)
    records = stores.records
    people, popularity = People(records, staleness_s=0), Popularity(records)
    return Retriever(records, people, stores.vectors, releases, popularity)


def expected_best(world, scores, selection, seen):
    """The best allowed items by brute force."""
    tree = parse(selection.filter, selection.filter_params, FIELDS)
    allowed = [
        i
        for i in scores
        if i not in seen
        and i not in selection.exclude_ids
        and (tree is None or evaluate(tree, world.items[i].fields))
    ]
    return sorted(allowed, key=lambda i: -scores[i])[: selection.page_size]


def assert_same_ranking(hits, expected, scores):
    """The same scores in the same order: equal scores may change places."""
    found = [scores[hit.id] for hit in hits]

    assert found == pytest.approx([scores[i] for i in expected], abs=1e-4)
    assert [hit.score for hit in hits] == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("text", FILTERS)
async def test_recommend_equals_exact_scoring(world, retriever, text):
    """The hits for known users are the best items that match and were not seen."""
    selection = Selection(page_size=12, filter=text)
    subjects = [UserSubject(f"user {n}") for n in (0, 7, 23)]

    answers = await retriever.recommend(world.catalog.id, subjects, selection, timeout_s=TIMEOUT_S)

    for subject, answer in zip(subjects, answers, strict=True):
        scores = world.scores(subject.user_id)
        expected = expected_best(world, scores, selection, world.seen[subject.user_id])
        assert answer.source is Source.PERSONAL
        assert answer.is_short == (len(expected) < selection.page_size)
        assert_same_ranking(answer.hits, expected, scores)


async def test_an_anonymous_history_counts_like_a_users(world, retriever):
    """A history in the request gives what the same history of a user gives."""
    selection = Selection(page_size=10)
    subjects = [UserSubject("user 3"), HistorySubject(world.events_of["user 3"])]

    known, anonymous = await retriever.recommend(
        world.catalog.id, subjects, selection, timeout_s=TIMEOUT_S
    )

    assert [hit.id for hit in anonymous.hits] == [hit.id for hit in known.hits]


async def test_a_click_counts_at_once(world, retriever, stores):
    """What a user does is seen by the next recommendation, and moves it."""
    selection = Selection(page_size=20)
    subject = UserSubject("user 1")
    before = await retriever.recommend(world.catalog.id, [subject], selection, timeout_s=TIMEOUT_S)
    clicked = before[0].hits[0].id
    event = world.events_of["user 1"].slice(0, 1).set_column(2, "item_id", pa.array([clicked]))
    stores.records.interactions.append(world.catalog.id, event)

    after = await retriever.recommend(world.catalog.id, [subject], selection, timeout_s=TIMEOUT_S)

    assert clicked not in [hit.id for hit in after[0].hits]
    assert [hit.score for hit in after[0].hits] != [hit.score for hit in before[0].hits]


async def test_writes_of_others_show_in_time_and_on_request(world, stores, urls):
    """What others write shows by STRONG at once, by BOUNDED where marks are shared."""
    people = People(stores.records, staleness_s=3_600)
    releases = ActiveReleases(stores.records, stores.artifacts, refresh_s=0.001)
    popularity = Popularity(stores.records)
    retriever = Retriever(stores.records, people, stores.vectors, releases, popularity)
    others = Records.open(urls.records)
    subject, bounded = UserSubject("user 4"), Selection(page_size=20)
    strong = replace(bounded, consistency=Consistency.STRONG)

    async def ask(selection):
        (answer,) = await retriever.recommend(
            world.catalog.id, [subject], selection, timeout_s=TIMEOUT_S
        )
        return [hit.id for hit in answer.hits]

    async def click(item):
        event = world.events_of["user 4"].slice(0, 1).set_column(2, "item_id", pa.array([item]))
        await asyncio.to_thread(others.interactions.append, world.catalog.id, event)

    first = await ask(bounded)
    with closing(others):
        await click(first[0])

    assert (first[0] not in await ask(bounded)) == stores.records.marks.is_shared
    assert first[0] not in await ask(strong)
    assert first[0] not in await ask(bounded)


async def test_own_writes_show_at_once(world, stores):
    """What this process wrote of a user counts in the next answer, however long users are kept."""
    people = People(stores.records, staleness_s=3_600)
    releases = ActiveReleases(stores.records, stores.artifacts, refresh_s=0.001)
    popularity = Popularity(stores.records)
    retriever = Retriever(stores.records, people, stores.vectors, releases, popularity)
    subject, selection = UserSubject("user 6"), Selection(page_size=20)
    asked = (world.catalog.id, [subject], selection)

    (first,) = await retriever.recommend(*asked, timeout_s=TIMEOUT_S)
    clicked = first.hits[0].id
    event = world.events_of["user 6"].slice(0, 1).set_column(2, "item_id", pa.array([clicked]))
    await asyncio.to_thread(stores.records.interactions.append, world.catalog.id, event)
    (second,) = await retriever.recommend(*asked, timeout_s=TIMEOUT_S)

    assert clicked not in [hit.id for hit in second.hits]


async def test_seen_items_come_back_on_request(world, retriever):
    """With `include_seen` the best items are ranked whether seen or not."""
    selection = Selection(page_size=10, include_seen=True)
    scores = world.scores("user 2")

    (answer,) = await retriever.recommend(
        world.catalog.id, [UserSubject("user 2")], selection, timeout_s=TIMEOUT_S
    )

    assert_same_ranking(answer.hits, expected_best(world, scores, selection, set()), scores)


async def test_excluded_items_are_not_among_the_hits(world, retriever):
    """Excluded ids make room for the next best."""
    scores = world.scores("user 5")
    everything = expected_best(world, scores, Selection(page_size=10), world.seen["user 5"])
    selection = Selection(page_size=10, exclude_ids=frozenset(everything[:5]))

    (answer,) = await retriever.recommend(
        world.catalog.id, [UserSubject("user 5")], selection, timeout_s=TIMEOUT_S
    )

    expected = expected_best(world, scores, selection, world.seen["user 5"])
    assert_same_ranking(answer.hits, expected, scores)


async def test_fields_are_returned_as_written(world, retriever):
    """The fields asked for come with each hit; a missing value is left out."""
    selection = Selection(page_size=50, return_fields=("*",))

    (answer,) = await retriever.recommend(
        world.catalog.id, [UserSubject("user 9")], selection, timeout_s=TIMEOUT_S
    )

    assert [dict(hit.fields) for hit in answer.hits] == [
        dict(world.items[hit.id].fields) for hit in answer.hits
    ]


@pytest.mark.parametrize("side", list(Side))
async def test_similar_equals_exact_cosine(world, retriever, stores, side):
    """Neighbours are ranked by the cosine of their vectors, without the subject itself."""
    subject = "user 4" if side is Side.USER else world.served.items.ids[3].as_py()
    ids = [f"user {n}" for n in range(60)] if side is Side.USER else [*world.items]
    release = stores.records.releases.get(f"r{world.catalog.id}")
    found = await retriever.embeddings(
        world.catalog.id,
        ids if side is Side.ITEM else [],
        ids if side is Side.USER else [],
        timeout_s=TIMEOUT_S,
    )
    vectors = found.users if side is Side.USER else found.items
    own = vectors[subject] / np.linalg.norm(vectors[subject])
    cosines = {i: float(v @ own / np.linalg.norm(v)) for i, v in vectors.items() if i != subject}

    answer = await retriever.similar(
        side, world.catalog.id, subject, Selection(page_size=10), timeout_s=TIMEOUT_S
    )

    expected = sorted(cosines, key=lambda i: -cosines[i])[:10]
    assert answer.release_id == release.id
    assert_same_ranking(answer.hits, expected, cosines)


async def test_a_selective_filter_on_a_graph_index_loses_nothing(stores, retriever):
    """Where few items match, an approximate index still gives all of them."""
    made = await make_world(stores, index=VectorIndex(IndexKind.HNSW))
    await publish(stores, made, f"r{made.catalog.id}")
    selection = Selection(page_size=10, filter="year == 1983")

    (answer,) = await retriever.recommend(
        made.catalog.id, [UserSubject("user 6")], selection, timeout_s=TIMEOUT_S
    )

    scores = made.scores("user 6")
    expected = expected_best(made, scores, selection, made.seen["user 6"])
    assert_same_ranking(answer.hits, expected, scores)
    assert answer.is_short


async def test_similar_users_under_a_filter_on_a_graph_index(stores, retriever):
    """Where few users match, all of them are ranked by their cosine."""
    made = await make_world(stores, index=VectorIndex(IndexKind.HNSW))
    await publish(stores, made, f"r{made.catalog.id}")
    ids = [f"user {n}" for n in range(60)]
    found = await retriever.embeddings(made.catalog.id, [], ids, timeout_s=TIMEOUT_S)
    own = found.users["user 4"] / np.linalg.norm(found.users["user 4"])
    cosines = {
        i: float(vector @ own / np.linalg.norm(vector))
        for i, vector in found.users.items()
        if i != "user 4" and int(i.split()[1]) < 30
    }

    answer = await retriever.similar(
        Side.USER, made.catalog.id, "user 4", Selection(10, "age < 50"), timeout_s=TIMEOUT_S
    )

    expected = sorted(cosines, key=lambda i: -cosines[i])[:10]
    assert_same_ranking(answer.hits, expected, cosines)
    assert not answer.is_short


async def test_bad_requests_name_the_field(world, retriever):
    """A wrong dimension and an unknown field to return are told by their place."""
    short = VectorSubject(np.ones(3, np.float32), "subjects[1].vector.values")

    with pytest.raises(InvalidArgument) as wrong_dimension:
        await retriever.recommend(
            world.catalog.id, [UserSubject("user 1"), short], Selection(), timeout_s=TIMEOUT_S
        )
    with pytest.raises(InvalidArgument) as unknown_field:
        await retriever.recommend(
            world.catalog.id,
            [UserSubject("user 1")],
            Selection(return_fields=("title", "prize")),
            timeout_s=TIMEOUT_S,
        )

    assert wrong_dimension.value.violations[0].field == "subjects[1].vector.values"
    assert unknown_field.value.violations[0].field == "return_fields[1]"


async def test_what_is_not_there_is_told(stores, retriever, world):
    """An unknown catalog, one without a release and an unknown entity each have a reason."""
    bare = await make_world(stores)
    cases = [
        (NotFound, Reason.CATALOG_NOT_FOUND, "nowhere", "x"),
        (FailedPrecondition, Reason.NO_ACTIVE_RELEASE, bare.catalog.id, "x"),
        (NotFound, Reason.ITEM_NOT_FOUND, world.catalog.id, "no such item"),
    ]

    for kind, reason, catalog_id, item_id in cases:
        with pytest.raises(kind) as fault:
            await retriever.similar(
                Side.ITEM, catalog_id, item_id, Selection(), timeout_s=TIMEOUT_S
            )
        assert fault.value.reason is reason
