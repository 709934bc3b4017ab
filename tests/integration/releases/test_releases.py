"""Building, activating, following and deleting releases."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from milvine.domain.entity import Entity, Side
from milvine.domain.errors import FailedPrecondition, NotFound, Reason, Unavailable
from milvine.domain.release import ReleaseState
from milvine.releases import Follower, Releases, Sweeper
from milvine.releases.follow import carry_changes
from tests.integration.world import ITEMS, USERS, make_world, publish

TIMEOUT_S = 30.0


async def test_a_release_holds_what_the_model_knows(stores):
    """Both sides are complete, the gate is measured, and the catalog points at the release."""
    world = await make_world(stores)

    release = await publish(stores, world, "ra" + world.model.id)

    known = len(world.served.items)
    assert (release.item_count, release.user_count) == (known, USERS)
    assert release.gate is not None
    assert release.gate.index_recall >= 0.95
    assert stores.records.catalogs.get(world.catalog.id).active_release_id == release.id
    for name in release.collections(Side.ITEM):
        assert await stores.vectors.count(name, timeout_s=TIMEOUT_S) == known <= ITEMS


async def test_deleted_items_are_not_released(stores):
    """An item that was deleted before the build does not come back with it."""
    world = await make_world(stores)
    gone = world.served.items.ids[0].as_py()
    stores.records.entities.delete(world.catalog.id, Side.ITEM, [gone])

    release = await publish(stores, world, "rb" + world.model.id)

    assert release.item_count == len(world.served.items) - 1
    assert await rows(stores, release, f"id in ['{_quoted(gone)}']") == []


async def test_rollback_is_activating_the_release_before(stores):
    """The release before stays loaded and serves again when it is activated."""
    world = await make_world(stores)
    first = await publish(stores, world, "rc1" + world.model.id)
    await publish(stores, world, "rc2" + world.model.id)

    await releases(stores).activate(first.id, timeout_s=TIMEOUT_S)

    assert stores.records.catalogs.get(world.catalog.id).active_release_id == first.id
    assert await stores.vectors.is_loaded(first.collection(Side.ITEM), timeout_s=TIMEOUT_S)


async def test_old_releases_are_pruned(stores):
    """Beside the active release as many as asked for are kept, the latest active ones."""
    world = await make_world(stores)
    made = [
        await publish(stores, world, f"rd{n}{world.model.id}", keep_releases=1) for n in range(3)
    ]

    kept = {r.id for r in stores.records.releases.list(world.catalog.id, limit=10)}

    await sweep(stores)
    names = await stores.vectors.list(timeout_s=TIMEOUT_S)
    assert kept == {made[1].id, made[2].id}
    assert not set(made[0].collections()) & set(names)


async def test_a_held_release_does_not_serve(stores):
    """With `hold` the release is ready and the catalog has none active."""
    world = await make_world(stores)

    release = await publish(stores, world, "re" + world.model.id, hold=True)

    assert release.state is ReleaseState.READY
    assert stores.records.catalogs.get(world.catalog.id).active_release_id is None


async def test_a_held_release_waits(stores):
    """No later publication prunes what was never active, nor counts it among what it keeps."""
    world = await make_world(stores)
    names = [f"r{part}{world.model.id}" for part in ("o1", "o2", "o3", "o4")]
    for name, options in zip(names, ({}, {"hold": True}, {}, {}), strict=True):
        await publish(stores, world, name, keep_releases=1, **options)

    kept = {r.id for r in stores.records.releases.list(world.catalog.id, limit=10)}

    assert kept == set(names[1:])


async def test_a_failed_gate_leaves_the_active_release(stores):
    """A release under the bound is FAILED and says why, has no collections, and never serves."""
    world = await make_world(stores)
    active = await publish(stores, world, "rf1" + world.model.id)

    with pytest.raises(FailedPrecondition) as fault:
        await publish(stores, world, "rf2" + world.model.id, min_index_recall=1.01)

    failed = stores.records.releases.get("rf2" + world.model.id)
    assert fault.value.reason is Reason.GATE_FAILED
    assert failed.state is ReleaseState.FAILED
    assert failed.failure == fault.value.message
    assert stores.records.catalogs.get(world.catalog.id).active_release_id == active.id
    await sweep(stores)
    assert not set(failed.collections()) & set(await stores.vectors.list(timeout_s=TIMEOUT_S))


async def test_the_active_release_cannot_be_deleted(stores):
    """What serves stays; another release goes with its collections."""
    world = await make_world(stores)
    first = await publish(stores, world, "rh1" + world.model.id)
    second = await publish(stores, world, "rh2" + world.model.id)

    with pytest.raises(FailedPrecondition) as fault:
        await releases(stores).delete(second.id, timeout_s=TIMEOUT_S)
    await releases(stores).delete(first.id, timeout_s=TIMEOUT_S)

    assert fault.value.reason is Reason.RESOURCE_IN_USE
    with pytest.raises(NotFound):
        stores.records.releases.get(first.id)
    assert not set(first.collections()) & set(await stores.vectors.list(timeout_s=TIMEOUT_S))


async def test_changes_are_carried_into_live_releases(stores):
    """An update, a deletion and a revival show in every live release within the follower's look."""
    world = await make_world(stores)
    made = [await publish(stores, world, f"ri{n}{world.model.id}") for n in range(2)]
    changed, gone, user = (
        world.served.items.ids[0].as_py(),
        world.served.items.ids[1].as_py(),
        "user 0",
    )
    records = stores.records
    records.entities.upsert(world.catalog.id, Side.ITEM, [Entity(changed, {"year": 3000})])
    records.entities.delete(world.catalog.id, Side.ITEM, [gone])
    records.entities.upsert(world.catalog.id, Side.USER, [Entity(user, {"age": 99})])

    async with following(stores):
        for release in made:
            await until(lambda r=release: is_carried(stores, r))

    for release in made:
        assert await rows(stores, release, "year == 3000") == [changed]
        assert len(await rows(stores, release, "")) == len(world.served.items) - 1
        assert await rows(stores, release, "age == 99", Side.USER) == [user]


async def test_a_broken_release_keeps_no_other_waiting(stores):
    """Where one release has lost a collection and another its model, the third still follows."""
    made = []
    for n in range(3):
        world = await make_world(stores)
        made.append(await publish(stores, world, f"rl{n}{world.model.id}"))
        changed = [Entity(world.served.items.ids[0].as_py(), {"year": 3000})]
        stores.records.entities.upsert(world.catalog.id, Side.ITEM, changed)
    bare, lost, whole = made
    await stores.vectors.drop(bare.neighbour_collection(Side.USER), timeout_s=TIMEOUT_S)
    stores.artifacts.delete(lost.model_id)

    async with following(stores):
        await until(lambda: is_carried(stores, whole))

    assert not is_carried(stores, lost)
    for broken in (bare, lost):
        await releases(stores).delete_catalog(broken.catalog_id, force=True, timeout_s=TIMEOUT_S)


async def test_carrying_ends_under_steady_writes(stores):
    """What is written while changes are carried waits for the next time."""
    world = await make_world(stores)
    release = await publish(stores, world, "rm" + world.model.id)
    first, second = world.served.items.ids[:2].to_pylist()
    records, pages = stores.records, []
    records.entities.upsert(world.catalog.id, Side.ITEM, [Entity(first, {"year": 3000})])
    revision = records.catalogs.revision(world.catalog.id)

    async def write_on() -> None:
        pages.append(1)
        assert len(pages) < 5, "it goes on and on"
        records.entities.upsert(world.catalog.id, Side.ITEM, [Entity(second, {"year": 3001})])

    await carry_changes(records, stores.vectors, release, world.served, on_page=write_on)

    assert records.releases.synced(release.id) == revision
    assert await rows(stores, release, "year == 3000") == [first]
    assert await rows(stores, release, "year == 3001") == []


async def test_what_only_interactions_know_can_be_deleted(stores):
    """An item that was never registered leaves the live release and does not come back."""
    world = await make_world(stores, has_items=False)
    gone = world.served.items.ids[0].as_py()
    release = await publish(stores, world, "rn1" + world.model.id)

    assert stores.records.entities.delete(world.catalog.id, Side.ITEM, [gone]) == 0
    async with following(stores):
        await until(lambda: is_carried(stores, release))
    after = await publish(stores, world, "rn2" + world.model.id)

    for checked in (release, after):
        assert await rows(stores, checked, f"id in ['{_quoted(gone)}']") == []


async def test_items_that_the_model_does_not_know_wait_for_the_next_release(stores):
    """A new item has no vector yet: the follower passes it over and goes on."""
    world = await make_world(stores)
    release = await publish(stores, world, "rj" + world.model.id)
    fresh = [Entity("brand new", {"year": 3001}), Entity(world.served.items.ids[0].as_py(), {})]
    stores.records.entities.upsert(world.catalog.id, Side.ITEM, fresh)

    async with following(stores):
        await until(lambda: is_carried(stores, release))

    assert await rows(stores, release, "year == 3001") == []
    assert await rows(stores, release, "year is null and title is null") == [fresh[1].id]


async def test_deleting_a_catalog_takes_everything(stores):
    """With force, rows, collections and artifacts are gone; without, nothing is."""
    world = await make_world(stores)
    release = await publish(stores, world, "rk" + world.model.id)

    with pytest.raises(FailedPrecondition):
        await releases(stores).delete_catalog(world.catalog.id, force=False, timeout_s=TIMEOUT_S)
    await releases(stores).delete_catalog(world.catalog.id, force=True, timeout_s=TIMEOUT_S)

    assert not stores.artifacts.exists(world.model.id)
    assert not stores.records.catalogs.purge()
    assert not set(release.collections()) & set(await stores.vectors.list(timeout_s=TIMEOUT_S))
    with pytest.raises(NotFound):
        stores.records.catalogs.get(world.catalog.id)


async def test_what_can_not_be_removed_is_removed_later(stores, urls):
    """A deletion does not fail with a store: what is left goes as soon as the store lets it."""
    world = await make_world(stores)
    folder = Path(urls.artifacts) / world.model.id
    stuck = folder / "model.json"
    stuck.unlink()
    stuck.mkdir()

    await releases(stores).delete_model(world.model.id, timeout_s=TIMEOUT_S)
    with pytest.raises(Unavailable):
        await sweep(stores)
    stuck.rmdir()
    await sweep(stores)

    assert not folder.exists()


async def sweep(stores) -> None:
    """Remove what belongs to nobody."""
    sweeper = Sweeper(stores.records, stores.vectors, stores.artifacts)
    while await sweeper.sweep():
        pass


def releases(stores) -> Releases:
    """The releases over the stores."""
    return Releases(stores.records, stores.vectors, stores.artifacts)


@contextlib.asynccontextmanager
async def following(stores):
    """Run a follower inside the block."""
    stopping = asyncio.Event()
    follower = Follower(stores.records, stores.vectors, stores.artifacts, worker_id="test")
    task = asyncio.create_task(follower.run(stopping))
    yield
    stopping.set()
    await task


async def until(condition) -> None:
    """Wait for a condition, at most for TIMEOUT_S."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - a database changes
            await asyncio.sleep(0.02)


def is_carried(stores, release) -> bool:
    """Whether the release is up with the catalog."""
    revision = stores.records.catalogs.revision(release.catalog_id)
    return stores.records.releases.synced(release.id) >= revision


async def rows(stores, release, text: str, side: Side = Side.ITEM) -> list[str]:
    """The ids that match in both collections of a side, which must agree."""
    from milvine.filters import compile_filter, parse  # noqa: PLC0415

    tree = None if text.startswith("id ") else parse(text, {}, release.fields(side))
    expression = text if text.startswith("id ") else compile_filter(tree, stores.vectors.dialect)
    found = [
        await stores.vectors.match(
            spec, expression=expression, limit=1_000, strong=True, timeout_s=TIMEOUT_S
        )
        for spec in _specs(release, side)
    ]
    assert found[0] == found[1]
    return found[0]


def _specs(release, side: Side):
    from milvine.vectors.layout import layout  # noqa: PLC0415

    return layout(release, side, 16, 16).specs


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
