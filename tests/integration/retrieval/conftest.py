"""What tests of retrieval share."""

from __future__ import annotations

import asyncio

import pytest

from milvine.domain.catalog import IndexKind
from milvine.retrieval import ActiveReleases
from tests.integration.conftest import open_stores
from tests.integration.retrieval.shop import make_shop
from tests.integration.world import make_world, publish


@pytest.fixture(params=[IndexKind.FLAT, IndexKind.HNSW])
async def shop(stores, request):
    """Three groups of readers, of items that they read, and of new ones."""
    return await make_shop(stores, request.param)


@pytest.fixture(scope="module")
def catalog_id(urls, records):
    """A catalog that serves a release of a small model."""

    async def make() -> str:
        async with open_stores(urls, records) as stores:
            world = await make_world(stores)
            await publish(stores, world, f"r{world.catalog.id}", min_index_recall=0.0)
            return world.catalog.id

    return asyncio.run(make())


@pytest.fixture
async def active(stores, catalog_id):
    """That release, as retrieval has it."""
    return await ActiveReleases(stores.records, stores.artifacts, refresh_s=60).get(catalog_id)
