"""What tests of retrieval share."""

from __future__ import annotations

import pytest

from milvine.domain.catalog import IndexKind
from tests.integration.retrieval.shop import make_shop


@pytest.fixture(params=[IndexKind.FLAT, IndexKind.HNSW])
async def shop(stores, request):
    """Three groups of readers, of items that they read, and of new ones."""
    return await make_shop(stores, request.param)
