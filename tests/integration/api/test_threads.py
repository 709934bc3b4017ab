"""Calls that wait hold up only their like."""

from __future__ import annotations

import asyncio
import sqlite3

from milvine.client import Interaction

WRITERS = 40
"""More than there are threads of any kind."""


async def test_writers_that_wait_leave_threads_to_readers(api):
    """While another process keeps SQLite's write lock, reads answer, and no write is lost."""
    await api.client.create_catalog("waiting", event_types=["view"])
    other = sqlite3.connect(api.records._database.engine.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        writes = [
            asyncio.create_task(api.client.record("waiting", [Interaction(f"u{n}", "i")]))
            for n in range(WRITERS)
        ]
        async with asyncio.timeout(5):
            for _ in range(20):
                found = await api.client.get_catalog("waiting")
        under_way = [write for write in writes if not write.done()]
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert found.catalog_id == "waiting"
    assert len(under_way) == WRITERS
    assert sum([recorded.written for recorded in await asyncio.gather(*writes)]) == WRITERS
