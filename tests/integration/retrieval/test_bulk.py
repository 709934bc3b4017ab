"""Recommendations for every user beside those for one user at a time."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import grpc
import pytest

from milvine.api import build_server
from milvine.client import Client, RpcError
from milvine.domain.catalog import IndexKind, VectorIndex
from milvine.domain.errors import FailedPrecondition, NotFound, Reason, Unavailable
from milvine.domain.query import Selection, UserSubject
from milvine.domain.ranking import Boost, Cap, Diversity, Factor, Ranking
from milvine.releases import Releases
from milvine.retrieval import bulk, recommend_all
from milvine.server import LiveServices
from milvine.settings import Settings
from tests.integration.conftest import open_stores
from tests.integration.world import USERS, make_world, publish

TIMEOUT_S = 20.0
SELECTIONS = {
    "plain": Selection(),
    "short": Selection(page_size=40, filter="year in [1970, 1971]"),
    "seen": Selection(include_seen=True, page_size=5),
    "fields": Selection(return_fields=("title", "genres")),
    "excluded": Selection(exclude_ids=frozenset(f"item '{n}'\n☃" for n in range(0, 400, 2))),
    "ranked": Selection(
        return_fields=("year",),
        ranking=Ranking((Boost(Factor(3.0), "year > 2000"),), Diversity(0.7), (Cap("year", 2),)),
    ),
}


@pytest.fixture(scope="module")
def world(urls, records):
    """A published world that no test writes to."""

    async def make():
        async with open_stores(urls, records) as stores:
            made = await make_world(stores, index=VectorIndex(IndexKind.FLAT))
            await publish(stores, made, f"r{made.catalog.id}")
            return made

    return asyncio.run(make())


@pytest.fixture
def services(stores, tmp_path):
    """The use cases over the stores, without any memory of what was."""
    settings = Settings(_env_file=None, data_dir=tmp_path, staleness_s=0, refresh_s=0.001)
    return LiveServices(stores, settings)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch):
    """Several pages, of which the last is not full."""
    monkeypatch.setattr(bulk, "PAGE", 25)


def pages(services, world, selection=SELECTIONS["plain"], *, after=""):
    """The pages of everybody."""
    return recommend_all(
        services.records,
        services.retriever,
        world.catalog.id,
        selection,
        after=after,
        timeout_s=TIMEOUT_S,
    )


def users(world) -> list[str]:
    """The users of the world in order."""
    return sorted(world.seen, key=str.encode)


@pytest.mark.parametrize("name", SELECTIONS)
async def test_each_gets_what_recommend_gives(world, services, name):
    """Every user gets the hits, fields, source and shortfall of Recommend, in order of ids."""
    selection = SELECTIONS[name]
    made = [page async for page in pages(services, world, selection)]
    found = [one for page in made for one in page.recommendations]
    single = [
        await services.retriever.recommend(
            world.catalog.id, [UserSubject(user)], selection, timeout_s=TIMEOUT_S
        )
        for user in users(world)
    ]

    assert [user for user, _ in found] == users(world)
    assert [len(page.recommendations) for page in made] == [0, 25, 25, 10]
    assert {page.user_count for page in made} == {USERS}
    for (_, bulk_answer), [answer] in zip(found, single, strict=True):
        assert bulk_answer.release_id == answer.release_id
        assert (bulk_answer.source, bulk_answer.is_short) == (answer.source, answer.is_short)
        assert [hit.score for hit in bulk_answer.hits] == pytest.approx(
            [hit.score for hit in answer.hits], abs=1e-4
        )
        assert {hit.id: hit.fields for hit in bulk_answer.hits} == {
            hit.id: hit.fields for hit in answer.hits
        }


async def test_it_goes_on_after_a_user(world, services):
    """Users after the last one of a stream follow, and are counted."""
    last = users(world)[42]
    made = [page async for page in pages(services, world, after=last)]

    assert [user for page in made for user, _ in page.recommendations] == users(world)[43:]
    assert made[0].user_count == USERS - 43


async def test_one_release_answers_to_the_end(stores, services):
    """An activation on the way changes nothing; a deletion of the release ends it clearly."""
    world = await make_world(stores, index=VectorIndex(IndexKind.FLAT))
    await publish(stores, world, f"first{world.catalog.id}")
    await publish(stores, world, f"second{world.catalog.id}")
    releases = Releases(stores.records, stores.vectors, stores.artifacts)
    await releases.activate(f"first{world.catalog.id}", timeout_s=TIMEOUT_S)

    async with aclosing(pages(services, world)) as going:
        first = await anext(going)
        await releases.activate(f"second{world.catalog.id}", timeout_s=TIMEOUT_S)
        await anext(going)
        second = await anext(going)
        assert first.release_id == second.release_id == f"first{world.catalog.id}"
        assert {one.release_id for _, one in second.recommendations} == {first.release_id}
    gone = pages(services, world, Selection(release_id=first.release_id))
    await anext(gone)
    await releases.delete(first.release_id, timeout_s=TIMEOUT_S)
    with pytest.raises((NotFound, FailedPrecondition)):
        [page async for page in gone]


async def test_leaving_it_ends_what_is_under_way(world, services):
    """A consumer that goes away leaves no task behind, but a search that is on its way."""
    before = asyncio.all_tasks()
    async with aclosing(pages(services, world)) as going:
        await anext(going)
        await anext(going)

    async with asyncio.timeout(TIMEOUT_S):
        while asyncio.all_tasks() - before:  # noqa: ASYNC110 - the store's
            await asyncio.sleep(0.01)


@pytest.fixture
async def client(services):
    """A client of the API over the stores."""
    server = build_server(services)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Client(address) as connected:
        yield connected
    await server.stop(None)


async def test_over_grpc(client, world):
    """The client gets every user once, with the release and the number of users."""
    made = [page async for page in client.recommend_all(world.catalog.id, page_size=3)]
    found = [one for page in made for one in page.users]
    one = await client.recommend(world.catalog.id, user=found[7].user_id, page_size=3)

    assert [user.user_id for user in found] == users(world)
    assert {page.user_count for page in made} == {USERS}
    assert found[7].hits == one.hits
    assert (found[7].is_popular, found[7].is_short) == (False, False)


async def test_messages_stay_small(client, world, monkeypatch):
    """A page whose lists are long travels in several messages, of at least a user each."""
    monkeypatch.setattr("milvine.api.convert.bulk._MOST_HITS", 10)
    made = [page async for page in client.recommend_all(world.catalog.id, page_size=4)]

    assert [user.user_id for page in made for user in page.users] == users(world)
    assert {len(page.users) for page in made} == {0, 1, 2}


async def test_a_broken_stream_is_taken_up_again(services, client, world, monkeypatch):
    """A service that is away for a moment costs nothing: no user is missing, none comes twice."""
    ask, failures = services.retriever.recommend, iter([False, True, False, True, True])

    async def flaky(*args, **options):
        if next(failures, False):
            raise Unavailable("it is away", Reason.VECTORS_UNAVAILABLE)
        return await ask(*args, **options)

    monkeypatch.setattr("milvine.client.bulk._REST_S", 0.01)
    monkeypatch.setattr(services.retriever, "recommend", flaky)

    made = [page async for page in client.recommend_all(world.catalog.id)]

    assert [user.user_id for page in made for user in page.users] == users(world)


@pytest.mark.parametrize(
    ("asked", "reason", "field"),
    [
        ({"catalog_id": "nowhere"}, "CATALOG_NOT_FOUND", None),
        ({"after": "a\0"}, "INVALID_FIELD", "after_user_id"),
        ({"filter": "year >"}, "INVALID_FILTER", "filter"),
        ({"return_fields": ["nothing"]}, "INVALID_FIELD", "return_fields[0]"),
        ({"page_size": -1}, "INVALID_FIELD", "page_size"),
        ({"exclude": [""]}, "INVALID_FIELD", "exclude_item_ids[0]"),
        ({"release": "none"}, "RELEASE_NOT_FOUND", None),
    ],
)
async def test_bad_input(client, world, asked, reason, field):
    """What Recommend refuses is refused here, by the name of the field."""
    with pytest.raises(RpcError) as fault:
        [page async for page in client.recommend_all(**{"catalog_id": world.catalog.id} | asked)]

    assert fault.value.reason == reason
    assert fault.value.code is not grpc.StatusCode.INTERNAL
    assert [v.field for v in fault.value.violations] == ([field] if field else [])
