"""The API over real records, without vectors: what retrieval does is tested elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from milvine.api import Services, build_server
from milvine.client import Client
from milvine.models import families
from milvine.models.base import Family
from milvine.records import Records


@dataclass(frozen=True)
class RecordsOnly:
    """The services that need no vectors."""

    records: Records
    retriever: Any = None
    text_search: Any = None
    releases: Any = None
    families: Mapping[str, Family[Any]] = field(default_factory=lambda: families)
    call_timeout_s: float = 30.0
    timeout_s = Services.timeout_s


@dataclass(frozen=True)
class Api:
    """A running API."""

    records: Records
    address: str
    channel: grpc.aio.Channel
    client: Client


@pytest.fixture(scope="module")
def api_records(tmp_path_factory: pytest.TempPathFactory):
    """Records in SQLite."""
    records = Records.open(f"sqlite:///{tmp_path_factory.mktemp('api') / 'records.db'}")
    yield records
    records.close()


@pytest.fixture
async def api(api_records: Records):
    """The API on a free port, with a client and a bare channel to it."""
    server = build_server(RecordsOnly(api_records))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Client(address) as client, grpc.aio.insecure_channel(address) as channel:
        yield Api(api_records, address, channel, client)
    await server.stop(None)
