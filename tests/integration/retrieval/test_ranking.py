"""Rankings against brute force: boosts, diversity and caps, in any mix, with filters and pages."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from milvine import client as client_types
from milvine.api import build_server
from milvine.client import Client, RpcError
from milvine.domain.catalog import Catalog, EventType, Field, FieldType, IndexKind, VectorIndex
from milvine.domain.entity import Entity, Side
from milvine.domain.hit import Source
from milvine.domain.interaction import INTERACTIONS
from milvine.domain.query import Selection, UserSubject, VectorSubject
from milvine.domain.ranking import Boost, Cap, Diversity, Factor, NumberDecay, Ranking, TimeDecay
from milvine.domain.release import PublishRequest
from milvine.filters import parse
from milvine.models.serving import load_serving_model
from milvine.releases.follow import carry_changes
from milvine.retrieval import (
    ActiveReleases,
    People,
    Popularity,
    Retriever,
    matching,
    ranked,
    search,
)
from milvine.retrieval.popularity import FALLBACK
from milvine.text import same_encoder
from tests.filter_oracle import evaluate
from tests.integration.api.conftest import RecordsOnly
from tests.integration.conftest import open_stores
from tests.made_model import store_model
from tests.publishing import publish_by
from tests.ranking_oracle import Ranked

COUNT, DIMENSION, TIMEOUT_S = 600, 8, 20.0
START = datetime(2024, 1, 1, tzinfo=UTC)
FIELDS = (
    Field("author", FieldType.STRING),
    Field("price", FieldType.DOUBLE),
    Field("made", FieldType.TIMESTAMP),
    Field("year", FieldType.INT64),
    Field("tags", FieldType.STRING_LIST),
    Field("shelves", FieldType.INT64_LIST),
    Field("used", FieldType.BOOL),
)
FILTERS = [
    "",
    "year >= 1990",
    "used",
    'array_contains(tags, "x") or price is null',
    "year in [1980, 1981]",
]
_numbers = itertools.count()


@dataclass(frozen=True)
class Shop:
    """A catalog in service."""

    catalog_id: str
    release_id: str
    items: dict[str, Entity]
    vectors: dict[str, np.ndarray]

    def ranked(self, query, selection, *, bases=None) -> Ranked:
        """What a request of this moment may find, and how."""
        tree = parse(selection.filter, selection.filter_params, FIELDS)
        fields = {
            id_: item.fields
            for id_, item in self.items.items()
            if id_ not in selection.exclude_ids and evaluate(tree, item.fields)
        }
        directions = {id_: v / np.linalg.norm(v) for id_, v in self.vectors.items()}
        found = bases or {id_: float(self.vectors[id_] @ query) for id_ in fields}
        return Ranked(FIELDS, fields, directions, selection.ranking, datetime.now(UTC), found)


@pytest.fixture(scope="module", params=[IndexKind.FLAT, IndexKind.HNSW])
def shop(urls, records, request):
    """A published catalog; the tests only ask."""

    async def make():
        async with open_stores(urls, records) as stores:
            return await open_shop(stores, request.param)

    return asyncio.run(make())


async def open_shop(stores, index=IndexKind.FLAT) -> Shop:
    """Publish a model of random vectors; many items miss values, and few values are many items'."""
    catalog_id = f"shelf{next(_numbers)}"
    catalog = Catalog(
        catalog_id, (EventType("view"),), item_fields=FIELDS, vector_index=VectorIndex(index)
    )
    stores.records.catalogs.create(catalog)
    rng = np.random.default_rng(7)
    items = {f"item {n}": Entity(f"item {n}", make_fields(rng)) for n in range(COUNT)}
    stores.records.entities.upsert(catalog_id, Side.ITEM, list(items.values()))
    vectors = rng.normal(size=(COUNT, DIMENSION)).astype(np.float32)
    model = store_model(stores.records, stores.artifacts, catalog_id, list(items), vectors)
    request = PublishRequest(catalog_id, model.id, f"r{catalog_id}", min_index_recall=0.0)
    await publish_by(stores.records, stores.vectors, stores.artifacts, request)
    return Shop(catalog_id, f"r{catalog_id}", items, dict(zip(items, vectors, strict=True)))


def make_fields(rng):
    """Fields of an item, each of which may be missing."""
    tags = tuple("xyz"[n] for n in rng.integers(0, 3, rng.integers(0, 4)))
    fields = {
        "author": f"author {rng.integers(0, 12)}" + "!" * 100 * int(rng.integers(0, 2)),
        "price": float(rng.normal(10, 8)),
        "made": START + timedelta(days=float(rng.uniform(0, 800))),
        "year": int(rng.integers(1970, 2020)),
        "tags": tags,
        "shelves": tuple(int(n) for n in rng.integers(0, 40, rng.integers(0, 3))),
        "used": bool(rng.integers(0, 2)),
    }
    return {name: value for name, value in fields.items() if rng.random() < 0.85}


@pytest.fixture
def retriever(stores):
    """Retrieval that looks the active release up at each call."""
    return make_retriever(stores)


def make_retriever(stores):
    """Retrieval of its own."""
    releases = ActiveReleases(stores.records, stores.artifacts, refresh_s=0.001)
    people = People(stores.records, staleness_s=0)
    return Retriever(stores.records, people, stores.vectors, releases, Popularity(stores.records))


async def ask(retriever, shop, query, selection):
    """The answer for a vector."""
    subject = VectorSubject(np.asarray(query, np.float32))
    (answer,) = await retriever.recommend(
        shop.catalog_id, [subject], selection, timeout_s=TIMEOUT_S
    )
    return answer


def pairs(hits):
    """The ids and scores of hits."""
    return [(hit.id, hit.score) for hit in hits]


def make_boost(rng):
    """Any boost."""
    kinds = [
        Factor(float(rng.choice([0.1, 0.5, 1.5, 4.0]))),
        NumberDecay("price", float(rng.normal(10, 5)), float(rng.uniform(1, 20))),
        NumberDecay("year", float(rng.integers(1970, 2020)), float(rng.uniform(1, 30))),
        TimeDecay("made", START + timedelta(days=100), timedelta(days=float(rng.uniform(10, 90)))),
        TimeDecay("made", None, timedelta(days=float(rng.uniform(100, 900)))),
    ]
    return Boost(kinds[rng.integers(0, len(kinds))], str(rng.choice(FILTERS)))


def make_ranking(rng):
    """Any ranking."""
    boosts = tuple(make_boost(rng) for _ in range(rng.integers(0, 4)))
    fields = [f.name for f in FIELDS if f.type is not FieldType.DOUBLE]
    names = rng.choice(fields, rng.integers(0, 3), replace=False)
    caps = tuple(Cap(str(name), int(rng.integers(1, 5))) for name in names)
    diversity = Diversity(float(rng.choice([0.0, 0.3, 0.8, 1.0])), int(rng.integers(1, 80)))
    return Ranking(boosts, diversity if rng.random() < 0.5 else None, caps)


@pytest.mark.parametrize("seed", range(40))
async def test_any_ranking_is_the_naive_one(shop, retriever, seed):
    """Whatever is boosted, capped, spread, filtered and excluded, by brute force it is the same."""
    rng = np.random.default_rng(seed)
    selection = Selection(
        page_size=int(rng.integers(1, 40)),
        filter=str(rng.choice(FILTERS)),
        exclude_ids=frozenset(rng.choice(list(shop.items), rng.integers(0, 100)).tolist()),
        ranking=make_ranking(rng),
    )
    query = rng.normal(size=DIMENSION)

    answer = await ask(retriever, shop, query, selection)

    shop.ranked(query, selection).check(pairs(answer.hits), selection.page_size)
    assert answer.is_short == (len(answer.hits) < selection.page_size)


@pytest.fixture
def _large(monkeypatch):
    """Every catalog counts as a large one."""
    for module in (matching, ranked, search):
        monkeypatch.setattr(module, "MOST_SCORED", 50)


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("shop", [IndexKind.FLAT], indirect=True)
@pytest.mark.parametrize("seed", range(15))
async def test_large_releases_rank_the_same(shop, stores, seed):
    """Where what matches is asked of the store at each request, hits are the same."""
    rng = np.random.default_rng(200 + seed)
    selection = Selection(
        page_size=25, filter=str(rng.choice(FILTERS)), ranking=make_ranking(rng), explain=True
    )
    query = rng.normal(size=DIMENSION)

    answer = await ask(make_retriever(stores), shop, query, selection)

    shop.ranked(query, selection).check(pairs(answer.hits), 25)


@pytest.mark.usefixtures("_large")
@pytest.mark.parametrize("shop", [IndexKind.FLAT], indirect=True)
async def test_large_releases_boost_the_best_by_score(shop, stores, monkeypatch):
    """What is not among the best by score is not boosted into the hits."""
    monkeypatch.setattr(ranked, "MOST_BOOSTED", 40)
    query = np.ones(DIMENSION)
    boost = Boost(Factor(1e6), "year < 1975")
    plain = await ask(make_retriever(stores), shop, query, Selection(page_size=40))

    answer = await ask(
        make_retriever(stores), shop, query, Selection(page_size=40, ranking=Ranking((boost,)))
    )

    assert {hit.id for hit in answer.hits} == {hit.id for hit in plain.hits}


@pytest.mark.parametrize("seed", range(6))
async def test_pages_are_one_list(shop, retriever, seed):
    """Caps and diversity count what earlier pages showed, and nothing comes twice."""
    rng = np.random.default_rng(100 + seed)
    ranking = replace(
        make_ranking(rng), diversity=Diversity(0.5, 30), caps=(Cap("author", 2), Cap("year", 3))
    )
    selection = Selection(page_size=9, ranking=ranking, fingerprint=b"f")
    query = rng.normal(size=DIMENSION)
    hits = []
    for _ in range(5):
        answer = await ask(retriever, shop, query, selection)
        hits += answer.hits
        selection = replace(selection, page_token=answer.next_page_token)
        if not answer.next_page_token:
            break

    assert len(hits) > 18
    shop.ranked(query, selection).check(pairs(hits), 45)


async def test_full_relevance_orders_by_score(shop, retriever):
    """With a relevance of 1 diversity is no different from none."""
    query = np.ones(DIMENSION)
    plain = await ask(retriever, shop, query, Selection(page_size=50))

    diverse = await ask(
        retriever, shop, query, Selection(page_size=50, ranking=Ranking((), Diversity(1.0)))
    )

    assert [hit.id for hit in diverse.hits] == [hit.id for hit in plain.hits]


async def test_subjects_of_a_batch_are_ranked_each_for_themselves(shop, retriever):
    """What one subject excludes is no matter of another's, and unknown ones are ranked, too."""
    rng = np.random.default_rng(1)
    ranking = Ranking((Boost(Factor(3.0), "used"),), Diversity(0.5, 40), (Cap("author", 2),))
    selection = Selection(page_size=15, ranking=ranking)
    queries = rng.normal(size=(3, DIMENSION)).astype(np.float32)
    subjects = [*map(VectorSubject, queries), UserSubject("nobody")]

    answers = await retriever.recommend(shop.catalog_id, subjects, selection, timeout_s=TIMEOUT_S)

    for query, answer in zip(queries, answers, strict=False):
        shop.ranked(query, selection).check(pairs(answer.hits), 15)
    assert answers[-1].source is Source.POPULAR


async def test_popular_items_are_ranked(stores):
    """Of subjects of whom nothing is known, counts are boosted, and hits spread and capped."""
    shop = await open_shop(stores)
    ids = list(shop.items)
    seen = [(f"user {n}", ids[m]) for n in range(30) for m in range(n, 200, 7)]
    stores.records.interactions.append(shop.catalog_id, table(seen))
    counts = dict.fromkeys(ids, 0.0)
    for _, item in seen:
        counts[item] += 1
    ranking = Ranking((Boost(Factor(2.0), "used"),), Diversity(0.6, 50), (Cap("author", 2),))
    selection = Selection(page_size=20, filter="year >= 1980", ranking=ranking, explain=True)

    retriever = make_retriever(stores)
    # A recommendation waits a second at most for the first count.
    await retriever.popular(shop.catalog_id, FALLBACK, Selection(), timeout_s=TIMEOUT_S)

    (answer,) = await retriever.recommend(
        shop.catalog_id, [UserSubject("nobody")], selection, timeout_s=TIMEOUT_S
    )

    assert answer.source is Source.POPULAR
    shop.ranked(None, selection, bases=counts).check(pairs(answer.hits), 20)
    assert [hit.explanation.base_score for hit in answer.hits] == [
        counts[hit.id] for hit in answer.hits
    ]


async def test_an_explanation_tells_what_boosts_did(shop, retriever):
    """The score before boosts, and those that apply with their factors, make the score."""
    boosts = (
        Boost(Factor(3.0), "used"),
        Boost(NumberDecay("price", 10.0, 5.0)),
        Boost(Factor(0.5), "year < 1990"),
    )
    selection = Selection(page_size=30, ranking=Ranking(boosts), explain=True)
    query = np.full(DIMENSION, 0.7)
    oracle = shop.ranked(query, selection)

    answer = await ask(retriever, shop, query, selection)

    for hit in answer.hits:
        factors = [oracle.factor(boost, hit.id) for boost in boosts]
        assert hit.explanation.base_score == pytest.approx(oracle.bases[hit.id], rel=1e-4, abs=1e-5)
        assert dict(hit.explanation.boosts) == pytest.approx(
            {i: factor for i, factor in enumerate(factors) if factor is not None}
        )


async def test_named_items_are_ranked(shop, retriever):
    """What a caller names is boosted, spread and capped; what a cap rules out is left out."""
    rng = np.random.default_rng(3)
    named = rng.choice(list(shop.items), 80, replace=False).tolist()
    ranking = Ranking((Boost(Factor(3.0), "used"),), Diversity(0.5, 40), (Cap("author", 2),))
    others = frozenset(shop.items.keys() - set(named))
    selection = Selection(ranking=ranking)
    query = rng.normal(size=DIMENSION)

    found = await retriever.rank(
        shop.catalog_id,
        VectorSubject(query.astype(np.float32)),
        named,
        selection,
        timeout_s=TIMEOUT_S,
    )

    assert len(found.hits) < 80
    shop.ranked(query, replace(selection, exclude_ids=others)).check(pairs(found.hits), 80)


async def test_fields_come_with_ranked_hits(shop, retriever):
    """The fields to return are those of the hits, whatever found them."""
    for boosts in ((), (Boost(Factor(2.0), "used"),)):
        selection = Selection(
            page_size=20, return_fields=("*",), ranking=Ranking(boosts, None, (Cap("author", 1),))
        )
        answer = await ask(retriever, shop, np.ones(DIMENSION), selection)
        assert [dict(hit.fields) for hit in answer.hits] == [
            shop.items[hit.id].fields for hit in answer.hits
        ]


@pytest.fixture
async def client(stores):
    """A client of the API over the stores."""
    services = RecordsOnly(stores.records, retriever=make_retriever(stores))
    server = build_server(services)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Client(address) as made:
        yield made
    await server.stop(None)


async def test_rankings_travel(shop, client):
    """A client's ranking gives over gRPC what it means, on each page."""
    ranking = client_types.Ranking(
        [client_types.Boost(3.0, "year >= {y}", {"y": 1990})], 0.6, 60, {"author": 2}
    )
    meant = Ranking((Boost(Factor(3.0), "year >= 1990"),), Diversity(0.6, 60), (Cap("author", 2),))
    query = np.linspace(1, -1, DIMENSION)

    first = await client.recommend(
        shop.catalog_id, vector=query.tolist(), page_size=8, ranking=ranking
    )
    second = await client.recommend(
        shop.catalog_id,
        vector=query.tolist(),
        page_size=8,
        ranking=ranking,
        page_token=first.next_page_token,
    )

    shop.ranked(query, Selection(ranking=meant)).check(pairs([*first.hits, *second.hits]), 16)


@pytest.mark.parametrize(
    ("ranking", "field", "reason"),
    [
        (
            client_types.Ranking([client_types.Boost(1), client_types.Boost(2, "yaer > 1")]),
            "ranking.boosts[1].filter",
            "INVALID_FILTER",
        ),
        (
            client_types.Ranking([client_types.NumberDecay("author", 1, 1)]),
            "ranking.boosts[0].number_decay.field",
            "INVALID_FIELD",
        ),
        (client_types.Ranking(caps={"price": 1}), "ranking.caps[0].field", "INVALID_FIELD"),
    ],
)
async def test_what_does_not_fit_the_release_is_told_by_its_place(
    shop, client, ranking, field, reason
):
    """Faults of filters and fields name their path in the request."""
    with pytest.raises(RpcError) as fault:
        await client.recommend(shop.catalog_id, vector=[1.0] * DIMENSION, ranking=ranking)

    assert [violation.field for violation in fault.value.violations] == [field]
    assert fault.value.reason == reason


async def test_changes_of_items_count(stores):
    """Values that changed, came or went are seen once the release has followed them."""
    shop = await open_shop(stores)
    retriever = make_retriever(stores)
    ranking = Ranking((Boost(NumberDecay("price", 0.0, 5.0)),), None, (Cap("author", 1),))
    selection = Selection(page_size=30, ranking=ranking)
    query = np.linspace(-1, 1, DIMENSION)
    first = await ask(retriever, shop, query, selection)
    shop.ranked(query, selection).check(pairs(first.hits), 30)

    top, gone, *_ = (hit.id for hit in first.hits)
    rng = np.random.default_rng(0)
    changed = {id_: Entity(id_, make_fields(rng)) for id_ in [top, *list(shop.items)[:200]]}
    changed[top] = Entity(top, {})
    stores.records.entities.upsert(shop.catalog_id, Side.ITEM, list(changed.values()))
    stores.records.entities.delete(shop.catalog_id, Side.ITEM, [gone])
    await follow(stores, shop)
    shop.items.update(changed)
    del shop.items[gone]
    second = await ask(retriever, shop, query, selection)
    async with asyncio.timeout(TIMEOUT_S):  # the store shows a deletion a moment later
        while gone in [hit.id for hit in second.hits]:
            second = await ask(retriever, shop, query, selection)

    shop.ranked(query, selection).check(pairs(second.hits), 30)


async def follow(stores, shop):
    """Carry what changed into the release."""
    release = stores.records.releases.get(shop.release_id)
    served = load_serving_model(
        stores.artifacts, stores.records.models.get(release.model_id), same_encoder
    )
    await carry_changes(stores.records, stores.vectors, release, served)


def table(events):
    """Views by user and item."""
    users, items = zip(*events, strict=True)
    columns = {
        "event_id": pa.nulls(len(events), pa.string()),
        "user_id": pa.array(users),
        "item_id": pa.array(items),
        "event_type": pa.array(["view"] * len(events)),
        "value": pa.nulls(len(events), pa.float64()),
        "event_time": pa.array([1_000_000] * len(events), pa.int64()),
    }
    return pa.table(columns, schema=INTERACTIONS)
