"""The same cases on an embedded Lite and on the oldest supported server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from milvine.domain.catalog import Field, FieldType, VectorIndex
from milvine.domain.entity import FieldValue
from milvine.vectors import CollectionSpec, Vectors
from tests.servers.milvus import run_lite

FIELDS = (
    Field("title", FieldType.STRING),
    Field("year", FieldType.INT64),
    Field("price", FieldType.DOUBLE),
    Field("is_new", FieldType.BOOL),
    Field("added", FieldType.TIMESTAMP),
    Field("genres", FieldType.STRING_LIST),
    Field("codes", FieldType.INT64_LIST),
)
YEAR = FIELDS[1]
SOON = 60.0


@dataclass(frozen=True)
class Library:
    """A sealed collection and all that was written to it."""

    spec: CollectionSpec
    ids: list[str]
    vectors: np.ndarray
    rows: list[Mapping[str, FieldValue]]


def collection(dimension: int, fields: tuple[Field, ...] = (), **index) -> CollectionSpec:
    """A spec with a name of its own."""
    return CollectionSpec(f"c_{uuid.uuid4().hex}", dimension, fields, VectorIndex(**index))


@pytest.fixture(scope="session")
def lite_uri(tmp_path_factory: pytest.TempPathFactory):
    with run_lite(tmp_path_factory.mktemp("lite")) as uri:
        yield uri


@pytest.fixture(scope="session", params=["lite", pytest.param("server", marks=pytest.mark.server)])
def uri(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue({"lite": "lite_uri", "server": "milvus_uri"}[request.param])


@pytest.fixture(scope="session")
def library(uri: str) -> Library:
    """3,000 rows with all types of fields, a third of them without any value."""
    rng = np.random.default_rng(7)
    rows = [{} if row % 3 == 0 else _fields(row) for row in range(3_000)]
    ids = [f"book-{row}" for row in range(3_000)]
    vectors = rng.normal(size=(3_000, 16)).astype(np.float32)
    made = Library(collection(16, FIELDS), ids, vectors, rows)
    asyncio.run(_build(uri, made))
    return made


@pytest.fixture
async def vectors(uri: str):
    store = await Vectors.connect(uri)
    yield store
    await store.close()


@pytest.fixture
async def shelf(vectors: Vectors):
    """An empty collection, sealed, of 4 dimensions and all types of fields."""
    spec = collection(4, FIELDS)
    await vectors.create(spec, timeout_s=SOON)
    await vectors.seal(spec, timeout_s=SOON)
    yield spec
    await vectors.drop(spec.name, timeout_s=SOON)


def _fields(row: int) -> Mapping[str, FieldValue]:
    return {
        "title": f"The {row}th",
        "year": 1900 + row % 100,
        "price": row / 8,
        "is_new": row % 2 == 0,
        "added": datetime(2020, 1, 1, 0, 0, row % 60, row, tzinfo=UTC),
        "genres": ("drama", f"g{row % 5}"),
        "codes": (row, -row),
    }


async def _build(uri: str, library: Library) -> None:
    store = await Vectors.connect(uri)
    spec = library.spec
    await store.create(spec, timeout_s=SOON)
    await store.write(spec, library.ids, library.vectors, library.rows, fresh=True, timeout_s=SOON)
    await store.seal(spec, timeout_s=SOON)
    await store.close()
