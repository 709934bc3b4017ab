"""Random searches against brute force: any filter, any list of excluded ids, any length."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest

from milvine.domain.catalog import Catalog, EventType, Field, FieldType, IndexKind, VectorIndex
from milvine.domain.entity import Entity, Side
from milvine.domain.hit import SearchMethod
from milvine.domain.query import Selection, VectorSubject
from milvine.domain.release import PublishRequest
from milvine.filters import parse
from milvine.models.serving import load_serving_model
from milvine.releases.follow import carry_changes
from milvine.retrieval import ActiveReleases, People, Popularity, Retriever
from milvine.retrieval.choice import MOST_FETCHED, WELL_FOUND
from milvine.text import same_encoder
from milvine.vectors import CollectionSpec
from tests.filter_oracle import evaluate
from tests.integration.conftest import open_stores
from tests.made_model import store_model
from tests.publishing import publish_by

COUNT, DIMENSION, CLUSTERS = 3_000, 16, 40
TIMEOUT_S = 20.0
FIELDS = (
    Field("year", FieldType.INT64),
    Field("place", FieldType.INT64),
    Field("genres", FieldType.STRING_LIST),
    Field("title", FieldType.STRING),
)
GENRES = ("Drama", "Comedy", 'Sci-"Fi"', "War", "Noir")
_numbers = itertools.count()


@dataclass(frozen=True)
class Shop:
    """A catalog in service."""

    catalog_id: str
    release_id: str
    index: VectorIndex
    items: dict[str, Entity]
    vectors: dict[str, np.ndarray]

    def best(self, query, selection, *, cosine=False) -> list[tuple[float, str]]:
        """What matches and is not excluded, best first."""
        tree = parse(selection.filter, selection.filter_params, FIELDS)
        unit = np.linalg.norm if cosine else lambda _: 1.0
        scored = [
            (float(vector @ query / unit(vector)), id_)
            for id_, vector in self.vectors.items()
            if id_ not in selection.exclude_ids and evaluate(tree, self.items[id_].fields)
        ]
        return sorted(scored, key=lambda one: -one[0])


@pytest.fixture(scope="module", params=[IndexKind.HNSW, IndexKind.FLAT])
def shop(request, urls, records):
    """A published catalog of clustered items with skewed norms."""

    async def make():
        async with open_stores(urls, records) as stores:
            return await open_shop(stores, request.param)

    return asyncio.run(make())


async def open_shop(stores, kind: IndexKind) -> Shop:
    """Publish random items."""
    number = next(_numbers)
    rng, chance = np.random.default_rng(number), random.Random(number)  # noqa: S311 - no secret
    centers = rng.normal(size=(CLUSTERS, DIMENSION))
    vectors = centers[rng.integers(0, CLUSTERS, COUNT)] + 0.4 * rng.normal(size=(COUNT, DIMENSION))
    vectors = (vectors * rng.lognormal(0, 0.5, (COUNT, 1))).astype(np.float32)
    items = [Entity(f"item '{row}'", fields_of(chance, row)) for row in range(COUNT)]
    ids = [item.id for item in items]
    catalog = stores.records.catalogs.create(
        Catalog(
            f"oracle{number}",
            (EventType("view"),),
            item_fields=FIELDS,
            vector_index=VectorIndex(kind),
        )
    )
    stores.records.entities.upsert(catalog.id, Side.ITEM, items)
    model = store_model(stores.records, stores.artifacts, catalog.id, ids, vectors)
    request = PublishRequest(catalog.id, model.id, f"r{catalog.id}", min_index_recall=0.0)
    release = await publish_by(stores.records, stores.vectors, stores.artifacts, request)
    return Shop(
        catalog.id,
        release.id,
        catalog.vector_index,
        {item.id: item for item in items},
        dict(zip(ids, vectors, strict=True)),
    )


def fields_of(chance: random.Random, row: int) -> dict[str, object]:
    """Fields of an item, some of them missing."""
    fields: dict[str, object] = {"place": row}
    if chance.random() < 0.9:
        fields["year"] = chance.randrange(1950, 2030)
    if chance.random() < 0.8:
        fields["genres"] = tuple(chance.sample(GENRES, chance.randrange(3)))
    if chance.random() < 0.9:
        fields["title"] = f'The "{row % 97}"'
    return fields


def any_filter(chance: random.Random, depth: int = 2) -> str:
    """A random filter, from what nothing matches to what everything does."""
    if depth and chance.random() < 0.5:
        first, second = any_filter(chance, depth - 1), any_filter(chance, depth - 1)
        joint = chance.choice(("and", "or", "and not", "or not"))
        return f"({first}) {joint} ({second})"
    quoted = chance.choice(GENRES).replace('"', '\\"')
    return chance.choice(
        (
            f"place < {chance.choice((0, 1, 3, 30, 300, 1_500, 2_999, 3_000))}",
            f"place >= {chance.choice((10, 1_000, 2_990))}",
            f"year in [{chance.randrange(1950, 2030)}, {chance.randrange(1950, 2030)}]",
            f'array_contains(genres, "{quoted}")',
            "genres is null",
            "year is not null",
            f'title == "The \\"{chance.randrange(97)}\\""',
            'title like "The%"',
        )
    )


def any_selection(chance: random.Random, shop: Shop) -> Selection:
    """A random page of a random search."""
    sizes = (0, 0, 3, 100, 600, 2_000, 2_995)
    excluded = frozenset(chance.sample(sorted(shop.items), chance.choice(sizes)))
    text = any_filter(chance) if chance.random() < 0.8 else ""
    return Selection(chance.choice((1, 10, 40)), text, exclude_ids=excluded)


@pytest.fixture
def retriever(stores):
    """Retrieval as a server has it; nothing is looked up anew while a test lasts."""
    return retriever_of(stores, refresh_s=3_600)


def retriever_of(stores, *, refresh_s: float) -> Retriever:
    """Retrieval that looks at the records each so many seconds."""
    releases = ActiveReleases(stores.records, stores.artifacts, refresh_s=refresh_s)
    people = People(stores.records, staleness_s=0)
    return Retriever(stores.records, people, stores.vectors, releases, Popularity(stores.records))


def any_query(rng, shop: Shop) -> np.ndarray:
    """A taste near those of some items."""
    near = shop.vectors[f"item '{rng.integers(COUNT)}'"]
    return (near + 0.2 * rng.normal(size=DIMENSION)).astype(np.float32)


def assert_best(hits, expected, count: int) -> None:
    """The best scores in their order, each hit with its own: equals may change places."""
    scores = {id_: score for score, id_ in expected}
    found = [scores[hit.id] for hit in hits]

    assert len({hit.id for hit in hits}) == len(hits)
    assert found == pytest.approx([score for score, _ in expected[:count]], abs=1e-4)
    assert [hit.score for hit in hits] == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
async def test_recommend_equals_brute_force(shop, stores, retriever, seed):
    """Any filter and exclusion list: the best that there are, and a short answer has them all."""
    chance, rng = random.Random(seed), np.random.default_rng(seed)  # noqa: S311 - no secret
    scans = stores.vectors.is_exact(CollectionSpec("items", DIMENSION, FIELDS, shop.index))
    for _ in range(12):
        selection = any_selection(chance, shop)
        query = any_query(rng, shop)
        (answer,) = await retriever.recommend(
            shop.catalog_id, [VectorSubject(query)], selection, timeout_s=TIMEOUT_S
        )

        expected = shop.best(query, selection)
        is_long = selection.page_size + len(selection.exclude_ids) > MOST_FETCHED
        is_lossy = not scans and (bool(selection.filter) or selection.page_size > WELL_FOUND)
        if is_lossy:
            assert answer.method is SearchMethod.EXACT
        elif not is_long:
            assert answer.method is SearchMethod.INDEX
        assert answer.is_short == (len(expected) < selection.page_size)
        if answer.method is SearchMethod.EXACT or scans:
            assert_best(answer.hits, expected, selection.page_size)
        else:
            best = {id_ for _, id_ in expected[: selection.page_size]}
            assert len(best & {hit.id for hit in answer.hits}) >= 0.8 * len(best)


@pytest.mark.parametrize("length", [1, 15, 100, 400, 1_000])
async def test_the_next_best_are_found(shop, retriever, length):
    """Who has had the best of all gets those that follow, however many they had."""
    query = any_query(np.random.default_rng(length), shop)
    ranked = shop.best(query, Selection())
    selection = Selection(10, exclude_ids=frozenset(id_ for _, id_ in ranked[:length]))

    (answer,) = await retriever.recommend(
        shop.catalog_id, [VectorSubject(query)], selection, timeout_s=TIMEOUT_S
    )

    best = {id_ for _, id_ in ranked[length : length + 10]}
    lost = best - {hit.id for hit in answer.hits}
    assert len(lost) <= (1 if answer.method is SearchMethod.INDEX else 0)


@pytest.mark.parametrize("seed", range(2))
async def test_similar_items_equal_brute_force(shop, retriever, seed):
    """Neighbours under any filter are those of the greatest cosine."""
    chance, rng = random.Random(seed), np.random.default_rng(seed)  # noqa: S311 - no secret
    for _ in range(10):
        item_id = f"item '{rng.integers(COUNT)}'"
        selection = Selection(chance.choice((1, 10, 40)), any_filter(chance))
        answer = await retriever.similar(
            Side.ITEM, shop.catalog_id, item_id, selection, timeout_s=TIMEOUT_S
        )

        unit = shop.vectors[item_id] / np.linalg.norm(shop.vectors[item_id])
        others = replace(selection, exclude_ids=frozenset({item_id}))
        expected = shop.best(unit, others, cosine=True)
        assert answer.is_short == (len(expected) < selection.page_size)
        assert_best(answer.hits, expected, selection.page_size)


async def test_many_searches_at_once_equal_brute_force(shop, retriever):
    """What travels together is answered apart: other queries, other excluded items."""
    chance, rng = random.Random(7), np.random.default_rng(7)  # noqa: S311 - no secret
    selections = [
        Selection(
            10,
            chance.choice(("place < 900", "genres is null", "place < 900 and year is not null")),
            exclude_ids=frozenset(chance.sample(sorted(shop.items), chance.choice((0, 2_000)))),
        )
        for _ in range(40)
    ]
    queries = [any_query(rng, shop) for _ in selections]

    answers = await asyncio.gather(
        *(
            retriever.recommend(
                shop.catalog_id, [VectorSubject(query)], selection, timeout_s=TIMEOUT_S
            )
            for query, selection in zip(queries, selections, strict=True)
        )
    )

    for query, selection, (answer,) in zip(queries, selections, answers, strict=True):
        assert_best(answer.hits, shop.best(query, selection), 10)


@pytest.mark.parametrize("text", ["place < 30", ""])
async def test_what_the_store_does_not_have_is_not_found(shop, stores, retriever, text):
    """An item that was deleted, or matches no more, is not shown, though its look-up is old."""
    excluded = frozenset(f"item '{row}'" for row in range(40, COUNT - 40))
    selection = Selection(10, text, exclude_ids=excluded, return_fields=("place",))
    query = shop.vectors["item '3'"]
    asked = (shop.catalog_id, [VectorSubject(query)], selection)
    (before,) = await retriever.recommend(*asked, timeout_s=TIMEOUT_S)
    gone, changed = before.hits[0].id, before.hits[1].id
    entities = stores.records.entities
    kept = {entity.id: entity for entity in entities.get(shop.catalog_id, Side.ITEM, [*shop.items])}
    try:
        entities.delete(shop.catalog_id, Side.ITEM, [gone])
        entities.upsert(shop.catalog_id, Side.ITEM, [Entity(changed, {"place": 7_000})])
        await follow(stores, shop)

        (after,) = await retriever.recommend(*asked, timeout_s=TIMEOUT_S)

        missing = {gone, changed} if text else {gone}
        expected = [
            (score, id_) for score, id_ in shop.best(query, selection) if id_ not in missing
        ]
        assert_best(after.hits, expected, 10)
        assert dict(after.hits[-1].fields) == {
            "place": shop.items[after.hits[-1].id].fields["place"]
        }
    finally:
        entities.upsert(shop.catalog_id, Side.ITEM, [kept[gone], kept[changed]])
        await follow(stores, shop)


async def test_what_comes_to_match_is_found(shop, stores):
    """Once the release has followed a change, and the records were looked at, it shows."""
    retriever = retriever_of(stores, refresh_s=0.001)
    selection = Selection(10, "place < 5", exclude_ids=frozenset(["nothing"] * 600))
    far = "item '2000'"
    asked = (shop.catalog_id, [VectorSubject(shop.vectors[far])], selection)
    (before,) = await retriever.recommend(*asked, timeout_s=TIMEOUT_S)
    try:
        moved = Entity(far, {**shop.items[far].fields, "place": 2})
        stores.records.entities.upsert(shop.catalog_id, Side.ITEM, [moved])
        await follow(stores, shop)

        async with asyncio.timeout(TIMEOUT_S):
            while far not in await ids_of(retriever, asked):
                pass
        assert far not in [hit.id for hit in before.hits]
    finally:
        stores.records.entities.upsert(shop.catalog_id, Side.ITEM, [shop.items[far]])
        await follow(stores, shop)


async def ids_of(retriever, asked) -> list[str]:
    """What is found."""
    (answer,) = await retriever.recommend(*asked, timeout_s=TIMEOUT_S)
    return [hit.id for hit in answer.hits]


async def follow(stores, shop: Shop) -> None:
    """Carry changes as a worker does, and wait until reads see them."""
    release = stores.records.releases.get(shop.release_id)
    served = load_serving_model(
        stores.artifacts, stores.records.models.get(release.model_id), same_encoder
    )
    await carry_changes(stores.records, stores.vectors, release, served)
    await stores.vectors.count(release.collection(Side.ITEM), timeout_s=TIMEOUT_S)
