"""Popular items over gRPC: what trends, what was ever popular, and what unknown people get."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import grpc
import numpy as np
import pyarrow as pa
import pytest

from milvine.api import build_server
from milvine.client import Client, HistoryEvent, RpcError
from milvine.domain.catalog import Catalog, EventType, IndexKind, VectorIndex
from milvine.domain.entity import Side, to_micros
from milvine.domain.interaction import INTERACTIONS
from milvine.filters import parse
from milvine.retrieval import ActiveReleases, People, Popularity, Retriever, popularity
from tests.filter_oracle import evaluate
from tests.integration.api.conftest import RecordsOnly
from tests.integration.conftest import open_stores
from tests.integration.world import FIELDS, World, make_world, publish

NOW = to_micros(datetime.now(UTC))
DAY = to_micros(datetime(1970, 1, 2, tzinfo=UTC))
TIMEOUT_S = 20.0
WEIGHTS = {"view": 1.0, "buy": 5.0, "shown": 0.0}
STRANGER = "not in the release"
FILTERS = [
    "",
    'year >= 1990 and array_contains_any(genres, ["Sci-Fi"])',
    "genres is null or year in [1970, 1971]",
    "year == 1983 and not array_contains(genres, 'Drama')",
]


@dataclass(frozen=True)
class Shop:
    """A published world with events of three types over a hundred days."""

    world: World
    events: list[tuple[str, str, int]]
    """Item, type and moment of each."""

    @property
    def id(self) -> str:
        """The catalog."""
        return self.world.catalog.id

    def counts(self, half_life=None, event_types=()) -> dict[str, float]:
        """The count of each item of the release that has one, by the definition."""
        counted = [
            (item, WEIGHTS[kind], moment)
            for item, kind, moment in self.events
            if WEIGHTS[kind] and (not event_types or kind in event_types)
        ]
        latest = max(moment for *_, moment in counted)
        known = set(self.world.served.items.ids.to_pylist())
        found: dict[str, float] = {}
        for item, weight, moment in counted:
            halvings = (
                0.0 if half_life is None else (latest - moment) / 1e6 / half_life.total_seconds()
            )
            if item in known and halvings <= 40:
                found[item] = found.get(item, 0.0) + weight * 2.0**-halvings
        return found

    def best(self, counts, *, text="", exclude=()) -> list[str]:
        """The items that match, the most popular first."""
        tree = parse(text, {}, FIELDS)
        return [
            i
            for i in sorted(counts, key=lambda i: -counts[i])
            if i not in exclude and (tree is None or evaluate(tree, self.world.items[i].fields))
        ]


@pytest.fixture(scope="module")
def shop(urls, records):
    """A published world, which the tests only ask."""

    async def make():
        async with open_stores(urls, records) as stores:
            world = await make_world(stores, index=VectorIndex(IndexKind.FLAT))
            await publish(stores, world, f"r{world.catalog.id}")
            return world

    world = asyncio.run(make())
    types = tuple(EventType(name, weight) for name, weight in WEIGHTS.items())
    records.catalogs.update(world.catalog.id, lambda catalog: replace(catalog, event_types=types))
    later = _later_events(world)
    records.interactions.append(world.catalog.id, _table(later))
    first = [
        (item, "view", at) for items in world.seen.values() for at, item in enumerate(sorted(items))
    ]
    return Shop(world, first + later)


def _later_events(world: World) -> list[tuple[str, str, int]]:
    """Old favourites, what trends now, and what nobody did before."""
    rng = np.random.default_rng(0)
    ids = sorted(world.items)
    days = rng.exponential(30, 1_500)
    strangers = [(STRANGER, "buy", NOW - hour * DAY // 24) for hour in range(100)]
    return strangers + [
        # The favourites of a day are items that lie near each other.
        (ids[int(day * 3 + rng.integers(60)) % len(ids)], kind, NOW - int(day * DAY))
        for day, kind in zip(days, rng.choice([*WEIGHTS], len(days)).tolist(), strict=True)
    ]


def _table(events: list[tuple[str, str, int]]) -> pa.Table:
    items, types, times = zip(*events, strict=True)
    return pa.table(
        {
            "event_id": pa.array([f"later {n}" for n in range(len(events))]),
            "user_id": pa.array([f"buyer {n % 50}" for n in range(len(events))]),
            "item_id": pa.array(items),
            "event_type": pa.array(types),
            "value": pa.nulls(len(events), pa.float64()),
            "event_time": pa.array(times, pa.int64()),
        },
        schema=INTERACTIONS,
    )


@asynccontextmanager
async def serving(stores):
    """A client of an API over the stores."""
    records = stores.records
    releases = ActiveReleases(records, stores.artifacts, refresh_s=0.001)
    people, counts = People(records, staleness_s=0), Popularity(records)
    retriever = Retriever(records, people, stores.vectors, releases, counts)
    server = build_server(RecordsOnly(records, retriever))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Client(address) as client:
        yield client
    await server.stop(None)


@pytest.fixture
async def client(stores):
    """A client of an API that has counted nothing yet."""
    async with serving(stores) as connected:
        yield connected


def assert_best(hits, counts, expected):
    """The hits have the counts of the expected: equal ones may change places."""
    assert [hit.score for hit in hits] == pytest.approx([counts[i] for i in expected], rel=1e-6)
    assert [counts[hit.id] for hit in hits] == pytest.approx([hit.score for hit in hits], rel=1e-6)


@pytest.mark.parametrize("text", FILTERS)
@pytest.mark.parametrize("half_life", [None, timedelta(hours=12), timedelta(days=7)])
async def test_the_most_popular_that_match(shop, client, half_life, text):
    """The hits are those with the highest counts, of the items that match."""
    found = await client.popular_items(shop.id, half_life=half_life, filter=text, page_size=20)

    counts = shop.counts(half_life)
    expected = shop.best(counts, text=text)[:20]
    assert_best(found.hits, counts, expected)
    assert found.release_id == f"r{shop.id}"
    assert found.is_short == (len(expected) < 20)


@pytest.mark.parametrize("text", FILTERS)
async def test_where_few_match_all_of_them_are_looked_up(shop, client, monkeypatch, text):
    """After a look at some, the answer comes from what matches, and is the same."""
    monkeypatch.setattr(popularity, "MOST_LOOKED", 4)

    found = await client.popular_items(shop.id, filter=text, page_size=3, exclude=["unknown"])
    few = await client.popular_items(shop.id, filter=f"({text or 'year > 0'}) and year == 1983")

    counts = shop.counts()
    assert_best(found.hits, counts, shop.best(counts, text=text)[:3])
    assert_best(
        few.hits, counts, shop.best(counts, text=f"({text or 'year > 0'}) and year == 1983")[:10]
    )


async def test_what_trends_is_not_what_was_ever_popular(shop, client):
    """A short half-life finds other items than none."""
    ever = await client.popular_items(shop.id, page_size=10)
    lately = await client.popular_items(shop.id, page_size=10, half_life=timedelta(hours=6))

    assert len({hit.id for hit in ever.hits} & {hit.id for hit in lately.hits}) < 5


@pytest.mark.parametrize("event_types", [["buy"], ["view"], ["view", "buy"], ["shown", "buy"]])
async def test_only_some_event_types_count(shop, client, event_types):
    """Those count that are named, by their weights; a weight of 0 counts nothing."""
    found = await client.popular_items(shop.id, event_types=event_types)

    counts = shop.counts(None, event_types)
    assert_best(found.hits, counts, shop.best(counts)[:10])


async def test_what_weighs_nothing_is_not_popular(shop, client):
    """Without an interaction that counts there are no hits, and the list is short."""
    found = await client.popular_items(shop.id, event_types=["shown"])

    assert found.hits == ()
    assert found.is_short


async def test_excluded_items_are_left_out(shop, client):
    """However many are excluded, the next ones follow, and then the list is short."""
    counts = shop.counts()
    best = shop.best(counts)

    found = await client.popular_items(shop.id, exclude=best[:-5], page_size=4)
    assert_best(found.hits, counts, best[-5:-1])
    assert not found.is_short
    rest = await client.popular_items(shop.id, exclude=[*best[:-5], "unknown"], page_size=9)
    assert {hit.id for hit in rest.hits} == set(best[-5:])
    assert rest.is_short


async def test_fields_come_with_the_hits(shop, client):
    """The fields that are asked for are returned as they were written."""
    found = await client.popular_items(shop.id, return_fields=["year", "title"], page_size=5)

    for hit in found.hits:
        fields = shop.world.items[hit.id].fields
        assert hit.fields == {name: fields[name] for name in ("year", "title")}


async def test_an_unknown_user_gets_what_was_popular_lately(shop, client):
    """With a half-life of 30 days, from the first item to those that nobody had."""
    found = await client.recommend(shop.id, user="nobody", page_size=1_000)

    counts = dict.fromkeys(shop.world.served.items.ids.to_pylist(), 0.0)
    counts |= {i: n for i, n in shop.counts(timedelta(days=30)).items() if i in counts}
    assert found.is_popular
    assert {hit.id for hit in found.hits} == set(counts)
    assert_best(found.hits, counts, sorted(counts, key=lambda i: -counts[i]))


async def test_a_history_of_the_unknown_gets_popular_items_that_match(shop, client):
    """So does a history that the release knows nothing of; filters and exclusions hold."""
    counts = shop.counts(timedelta(days=30))
    text = "year >= 1990"
    best = shop.best(counts, text=text)

    found = await client.recommend(
        *(shop.id,),
        history=[HistoryEvent("unknown", "view")],
        filter=text,
        exclude=best[:2],
        page_size=3,
    )

    assert found.is_popular
    assert_best(found.hits, counts, best[2:5])


async def test_pages_follow_each_other(shop, client):
    """Pages have every hit once, in the order of a single long list."""
    asked = {"half_life": timedelta(days=1), "filter": "year >= 1990"}
    whole = await client.popular_items(shop.id, page_size=100, **asked)

    first = await client.popular_items(shop.id, page_size=7, **asked)
    hits, token = list(first.hits), first.next_page_token
    while token:
        page = await client.popular_items(shop.id, page_size=9, page_token=token, **asked)
        hits += page.hits
        token = page.next_page_token
    assert hits[: len(whole.hits)] == list(whole.hits)
    assert len({hit.id for hit in hits}) == len(hits)


async def test_a_release_may_be_named(shop, client):
    """The active release by its name gives the same; one that is not there is told."""
    found = await client.popular_items(shop.id, release=f"r{shop.id}")
    assert found.hits == (await client.popular_items(shop.id)).hits

    with pytest.raises(RpcError) as raised:
        await client.popular_items(shop.id, release="none")
    assert raised.value.reason == "RELEASE_NOT_FOUND"


async def test_a_deleted_item_is_not_popular(stores, client):
    """What was deleted from the release is no hit, whatever its count."""
    world = await make_world(stores, index=VectorIndex(IndexKind.FLAT))
    await publish(stores, world, f"r{world.catalog.id}")
    found = await client.popular_items(world.catalog.id)
    first = found.hits[0]
    release = stores.records.releases.get(f"r{world.catalog.id}")
    collection = release.collection(Side.ITEM)
    await stores.vectors.delete(collection, [first.id], timeout_s=TIMEOUT_S)

    async with asyncio.timeout(TIMEOUT_S):  # a server may read what is some seconds old
        while first.id in [hit.id for hit in found.hits]:
            found = await client.popular_items(world.catalog.id)
    assert len(found.hits) == 10


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"half_life": timedelta(0)}, "half_life"),
        ({"half_life": timedelta(days=-1)}, "half_life"),
        ({"half_life": timedelta(days=4_000_000)}, "half_life"),
        ({"event_types": ["view", "vieew"]}, "event_types[1]"),
        ({"page_size": -1}, "page_size"),
        ({"filter": "yeer > 3"}, "filter"),
        ({"return_fields": ["titel"]}, "return_fields[0]"),
        ({"exclude": [""]}, "exclude_item_ids[0]"),
    ],
)
async def test_bad_input(shop, client, asked, field):
    """What breaks a rule is refused by the name of its field."""
    with pytest.raises(RpcError) as raised:
        await client.popular_items(shop.id, **asked)
    assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in [violation.field for violation in raised.value.violations]


async def test_nothing_to_ask(stores, client):
    """A catalog that is not there, and one without a release, are told."""
    empty = stores.records.catalogs.create(Catalog("unreleased", (EventType("view"),)))

    for catalog_id, reason in (("nowhere", "CATALOG_NOT_FOUND"), (empty.id, "NO_ACTIVE_RELEASE")):
        with pytest.raises(RpcError) as raised:
            await client.popular_items(catalog_id)
        assert raised.value.reason == reason
