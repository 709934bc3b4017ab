"""Erasing users, also while a release is being built."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from milvine.domain.entity import Side
from milvine.domain.operation import Operation, OperationKind
from milvine.domain.progress import PublishStage
from milvine.domain.release import Release, ReleaseState
from milvine.jobs.handlers import handlers
from milvine.jobs.payloads import EraseUserRequest, EraseUserResult, to_json
from milvine.jobs.runner import Job
from milvine.vectors.layout import layout
from tests.integration.world import USERS, World, make_world, order, publish
from tests.publishing import claim

USER, STRANGER = "user 3", "stranger"


@pytest.fixture
async def world(stores) -> World:
    """A catalog with a trained model."""
    return await make_world(stores)


async def test_the_receipt_says_what_is_gone(stores, world):
    """Metadata, interactions and the vectors of every release go, once; attempts say the same."""
    release = await publish(stores, world, "ea" + world.model.id)
    operation = begin(stores, world)

    receipt = await erase(stores, operation)
    again = await erase(stores, operation)

    assert receipt.had_metadata
    assert receipt.interaction_count == len(world.seen[USER])
    assert receipt.release_ids == (release.id,)
    assert replace(again, erase_time=receipt.erase_time) == receipt
    assert USER not in await users_of(stores, release)
    assert stores.records.interactions.history(world.catalog.id, [USER]).num_rows == 0


async def test_a_release_without_collections_is_no_obstacle(stores, world):
    """A build that has made no collection yet, or never will, keeps no erasure from its end."""
    by = claim(stores.records, order(world, "eb" + world.model.id))
    building = Release(
        id="eb" + world.model.id,
        catalog_id=world.catalog.id,
        model_id=world.model.id,
        state=ReleaseState.BUILDING,
        item_fields=world.catalog.item_fields,
        user_fields=world.catalog.user_fields,
        vector_index=world.catalog.vector_index,
        operation_id=by.id,
    )
    stores.records.releases.begin(building)

    receipt = await erase(stores, begin(stores, world))

    assert receipt.interaction_count == len(world.seen[USER])
    assert receipt.release_ids == ()


@pytest.mark.parametrize("user", [USER, STRANGER])
@pytest.mark.parametrize("stage", [PublishStage.WRITING_ITEMS, PublishStage.INDEXING])
async def test_a_build_under_way_leaves_the_user_out(stores, world, user, stage):
    """Whether its vector was written already or not, an erased user is in no release after."""
    add_stranger(stores, world)
    operation = begin(stores, world)

    def erase_meanwhile(progress) -> None:
        if progress.stage is stage:
            stores.records.erasures.erase(operation.id, world.catalog.id, user)

    release = await publish(stores, world, "ec" + world.model.id, erase_meanwhile)

    found = await users_of(stores, release)
    assert user not in found
    assert len(found) == USERS


def begin(stores, world) -> Operation:
    """An erasure of USER, as a row."""
    request = to_json(EraseUserRequest(world.catalog.id, USER))
    operation = Operation(
        "erase" + world.catalog.id, world.catalog.id, OperationKind.ERASE_USER, request
    )
    return stores.records.operations.create(operation, exclusive=False)


async def erase(stores, operation: Operation) -> EraseUserResult:
    """Do an erasure as a worker does."""
    of_kind = handlers(stores.records, stores.vectors, stores.artifacts, device="cpu")
    receipt = await of_kind[OperationKind.ERASE_USER](Job(operation))
    assert isinstance(receipt, EraseUserResult)
    return receipt


def add_stranger(stores, world) -> None:
    """Give STRANGER, who is not registered, the interactions of USER."""
    events = world.events_of[USER]
    place = events.schema.get_field_index("user_id")
    users = pa.array([STRANGER] * events.num_rows)
    stores.records.interactions.append(
        world.catalog.id, events.set_column(place, events.schema.field(place), users)
    )


async def users_of(stores, release) -> list[str]:
    """The users in both collections of a release, which must agree."""
    scores, neighbours = [
        await stores.vectors.match(spec, expression="", limit=1_000, strong=True, timeout_s=30.0)
        for spec in layout(release, Side.USER, 16, 16).specs
    ]
    assert scores == neighbours
    return scores
