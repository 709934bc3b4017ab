"""Pages of lists over gRPC: none repeats or skips, whatever happens in between."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import numpy as np
import pytest

from milvine.api import build_server
from milvine.client import Boost, Client, HistoryEvent, Interaction, Ranking, RpcError, pages
from milvine.domain.catalog import IndexKind, VectorIndex
from milvine.domain.errors import MilvineError
from milvine.releases import Releases
from milvine.retrieval import ActiveReleases, People, Popularity, Retriever
from milvine.retrieval.popularity import FALLBACK
from tests.integration.api.conftest import RecordsOnly
from tests.integration.conftest import open_stores
from tests.integration.world import ITEMS, USERS, World, make_world, publish

FILTER = "year >= 1990"
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Service:
    """A running API."""

    client: Client
    releases: Releases


@pytest.fixture(scope="module", params=[IndexKind.FLAT, IndexKind.HNSW], ids=str)
def world(request, urls, records):
    """A world with two releases, of which the second is active; each test has users of its own."""
    return asyncio.run(_publish_two(urls, records, request.param))


async def _publish_two(urls, records, kind: IndexKind) -> World:
    async with open_stores(urls, records) as stores:
        made = await make_world(stores, index=VectorIndex(kind))
        await publish(stores, made, f"a{made.catalog.id}")
        await publish(stores, made, f"b{made.catalog.id}", keep_releases=9)
        return made


@asynccontextmanager
async def serving(stores):
    """A process that serves; it looks releases up at each call, and remembers no one."""
    records = stores.records
    releases = ActiveReleases(records, stores.artifacts, refresh_s=0.001)
    people, popularity = People(records, staleness_s=0), Popularity(records)
    retriever = Retriever(records, people, stores.vectors, releases, popularity)
    server = build_server(RecordsOnly(records, retriever))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    changes = Releases(records, stores.vectors, stores.artifacts, on_change=releases.forget)
    async with Client(address) as client:
        yield Service(client, changes)
    await server.stop(None)


@pytest.fixture
async def service(stores):
    """A process that serves."""
    async with serving(stores) as running:
        yield running


@pytest.fixture
async def client(service):
    """A client of it."""
    return service.client


SUBJECTS = {
    "user": {"user": "user 3"},
    "history": {"history": ["item '1'\n☃", HistoryEvent("item '7'\n☃"), "item '30'\n☃"]},
    "vector": {"vector": np.linspace(-1, 1, 16).tolist()},
    "examples": {"liked": ["item '3'\n☃"], "disliked": {"item '250'\n☃": 0.5}},
    "unknown": {"user": "nobody"},
}


def searches(client: Client):
    """Each way to ask for a list, and how many there are to find."""
    return {
        "recommend": (client.recommend, {"user": "user 3"}),
        "similar_items": (client.similar_items, {"item_id": "item '3'\n☃"}),
        "similar_users": (client.similar_users, {"user_id": "user 3"}),
        "find_audience": (client.find_audience, {"item_id": "item '3'\n☃"}),
        "popular_items": (client.popular_items, {}),
    }


async def counted(client: Client, world: World) -> None:
    """Wait for the counts that answer where nothing is known; until then others do."""
    await client.popular_items(world.catalog.id, half_life=FALLBACK.half_life)


async def walk(find, *args, sizes=(7,), **options) -> list:
    """The hits of all pages, each of the next of some sizes, which go round."""
    hits, token, count = [], "", 0
    while True:
        size = sizes[count % len(sizes)]
        page = await find(*args, page_size=size, page_token=token, **options)
        hits += page.hits
        token, count = page.next_page_token, count + 1
        if not token:
            assert page.is_short
            return hits
        assert len(page.hits) == size


def assert_same_list(found, expected, *, exact: bool):
    """No hit twice, none left out, and with an exact index in the same order but for equals."""
    ids = [hit.id for hit in found]
    assert len(set(ids)) == len(ids)
    assert set(ids) == {hit.id for hit in expected}
    scores = {hit.id: hit.score for hit in expected}
    assert [hit.score for hit in found] == pytest.approx([scores[i] for i in ids], abs=1e-5)
    if exact:
        assert [scores[i] for i in ids] == pytest.approx([h.score for h in expected], abs=1e-5)


def is_exact(world: World) -> bool:
    """Whether the index of a world has no doubt about the order."""
    return world.catalog.vector_index.kind is IndexKind.FLAT


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("text", ["", FILTER])
async def test_pages_of_recommendations_are_one_list(world, client, subject, text):
    """Pages of any sizes are what one page has, with a filter too."""
    options = SUBJECTS[subject] | {"filter": text, "return_fields": ["year"]}
    await counted(client, world)
    whole = await client.recommend(world.catalog.id, page_size=1_000, **options)

    hits = await walk(client.recommend, world.catalog.id, sizes=(7, 40, 1, 23), **options)

    assert len(hits) > 100
    assert_same_list(hits, whole.hits, exact=is_exact(world))
    assert all(hit.fields["year"] >= 1990 for hit in hits) or not text


@pytest.mark.parametrize(
    "search", ["similar_items", "similar_users", "find_audience", "popular_items"]
)
async def test_pages_of_other_lists_are_one_list(world, client, search):
    """Neighbours, audiences and popular items go on in the same way."""
    find, options = searches(client)[search]
    whole = await find(world.catalog.id, page_size=1_000, **options)

    hits = await walk(find, world.catalog.id, sizes=(7, 40, 3), **options)

    assert len(hits) > USERS / 2
    assert_same_list(hits, whole.hits, exact=is_exact(world))


@pytest.mark.parametrize("subject", ["user", "unknown"])
@pytest.mark.parametrize(
    "ranking",
    [
        Ranking(boosts=[Boost(3.0, "year == 1983")]),
        Ranking(relevance=0.4, caps={"year": 3}),
    ],
    ids=["boosts", "diversity and caps"],
)
async def test_pages_of_a_ranking_are_one_list(world, client, subject, ranking):
    """A page is where one long choice goes on: likeness and caps look back at all of it."""
    options = SUBJECTS[subject] | {"ranking": ranking}
    await counted(client, world)
    whole = await client.recommend(world.catalog.id, page_size=1_000, **options)

    hits = await walk(client.recommend, world.catalog.id, sizes=(5, 11), **options)

    assert [hit.id for hit in hits] == [hit.id for hit in whole.hits] or not is_exact(world)
    assert len({hit.id for hit in hits}) == len(hits) == len(whole.hits)


async def test_pages_keep_the_history_of_the_first(world, client):
    """What is recorded on the way neither moves the list nor takes anything off it."""
    subject = {"user": "user 11"}
    whole = await client.recommend(world.catalog.id, page_size=1_000, **subject)
    seen = {hit.id for hit in whole.hits[30:60]}

    hits = []
    async for page in pages(client.recommend, world.catalog.id, page_size=25, **subject):
        hits += page.hits
        clicked = [Interaction("user 11", i) for i in seen]
        await client.record(world.catalog.id, clicked)

    assert_same_list(hits, whole.hits, exact=is_exact(world))
    after = await client.recommend(world.catalog.id, page_size=1_000, **subject)
    assert not seen & {hit.id for hit in after.hits}


async def test_pages_keep_the_release_of_the_first(world, service, stores):
    """A list goes on in its release when another one is activated, in any process."""
    one, two = f"a{world.catalog.id}", f"b{world.catalog.id}"
    await service.releases.activate(one, timeout_s=TIMEOUT_S)
    first = await service.client.recommend(world.catalog.id, user="user 5", page_size=5)
    await service.releases.activate(two, timeout_s=TIMEOUT_S)
    options = {"user": "user 5", "page_size": 5, "page_token": first.next_page_token}

    second = await service.client.recommend(world.catalog.id, **options)
    async with serving(stores) as other:
        same = await other.client.recommend(world.catalog.id, **options)
    anew = await service.client.recommend(world.catalog.id, user="user 5", page_size=5)

    assert (first.release_id, second.release_id, anew.release_id) == (one, one, two)
    assert [hit.id for hit in same.hits] == [hit.id for hit in second.hits]
    assert not {hit.id for hit in first.hits} & {hit.id for hit in second.hits}


async def test_a_release_can_be_named(world, client):
    """A ready release answers that is not active, to each way to ask."""
    other = f"a{world.catalog.id}"
    for find, options in searches(client).values():
        found = await find(world.catalog.id, release=other, **options)
        assert found.release_id == other
        assert found.hits


async def test_releases_that_can_not_answer_are_refused(world, client, stores):
    """One that is not there, one of another catalog, and one that failed."""
    foreign = await make_world(stores)
    await publish(stores, foreign, f"r{foreign.catalog.id}")
    failed = f"failed{world.catalog.id}"
    with pytest.raises(MilvineError, match="live index"):
        await publish(stores, world, failed, min_index_recall=1.1)
    cases = {
        "nope": (grpc.StatusCode.NOT_FOUND, "RELEASE_NOT_FOUND"),
        f"r{foreign.catalog.id}": (grpc.StatusCode.NOT_FOUND, "RELEASE_NOT_FOUND"),
        failed: (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE"),
    }

    for release, expected in cases.items():
        with pytest.raises(RpcError) as raised:
            await client.recommend(world.catalog.id, user="u", release=release)
        assert (raised.value.code, raised.value.reason) == expected
        assert raised.value.metadata["release_id"] == release


async def test_a_release_that_was_deleted_ends_its_lists(world, service, stores):
    """The error names the release and the way out."""
    gone = f"gone{world.catalog.id}{world.catalog.vector_index.kind.lower()}"
    await publish(stores, world, gone, hold=True)
    options = {"user": "user 5", "release": gone, "page_size": 5}
    first = await service.client.recommend(world.catalog.id, **options)
    await service.releases.delete(gone, timeout_s=TIMEOUT_S)

    with pytest.raises(RpcError) as raised:
        await service.client.recommend(
            world.catalog.id, page_token=first.next_page_token, **options
        )

    assert raised.value.code is grpc.StatusCode.NOT_FOUND
    assert raised.value.reason == "RELEASE_NOT_FOUND"
    assert raised.value.metadata["release_id"] == gone
    assert "begin again without a page_token" in raised.value.message


async def test_a_token_is_good_for_its_request_alone(world, client):
    """Another method, subject, filter, release or catalog refuses it."""
    found = await client.recommend(world.catalog.id, user="user 5", page_size=5)
    token = found.next_page_token
    asks = [
        client.recommend(world.catalog.id, user="user 6", page_token=token),
        client.recommend(world.catalog.id, user="user 5", filter=FILTER, page_token=token),
        client.recommend(world.catalog.id, user="user 5", include_seen=True, page_token=token),
        client.recommend(
            world.catalog.id, user="user 5", release=found.release_id, page_token=token
        ),
        client.recommend("elsewhere", user="user 5", page_token=token),
        client.similar_users(world.catalog.id, "user 5", page_token=token),
        client.popular_items(world.catalog.id, page_token=token),
        client.recommend(world.catalog.id, user="user 5", page_token=token[:-8]),
        client.recommend(world.catalog.id, user="user 5", page_token="x"),  # noqa: S106 - no secret
    ]

    for ask in asks:
        with pytest.raises(RpcError) as raised:
            await ask
        assert raised.value.reason == "INVALID_PAGE_TOKEN"
        assert [v.field for v in raised.value.violations] == ["page_token"]


@pytest.mark.parametrize("token", ["x", "é", "=" * 40, "A" * 1_000, "A" * (5 << 20)], ids=len)
async def test_forged_tokens_are_refused(world, client, token):
    """By each way to ask, whatever the token looks like."""
    for find, options in searches(client).values():
        with pytest.raises(RpcError) as raised:
            await find(world.catalog.id, page_token=token, **options)
        assert raised.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert raised.value.reason == "INVALID_PAGE_TOKEN"


async def test_a_list_that_ends_has_no_token(world, client):
    """Neither does a batch."""
    whole = await client.recommend(world.catalog.id, user="user 5", page_size=ITEMS)
    batch = await client.batch_recommend(world.catalog.id, ["user 5"], page_size=5)

    assert whole.is_short
    assert not whole.next_page_token
    assert not batch[0].next_page_token
