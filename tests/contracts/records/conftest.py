"""The same cases on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from milvine.domain.catalog import Catalog, EventType, Field, FieldType, ValueMeaning
from milvine.records import Records
from tests.servers.postgres import fresh_database

SHOP = Catalog(
    id="shop",
    display_name="Shop",
    event_types=(
        EventType("view"),
        EventType("rate", 2.5, ValueMeaning.RATING, liked_from=4.0),
    ),
    item_fields=(Field("title", FieldType.STRING, embed_text=True), Field("year", FieldType.INT64)),
    user_fields=(Field("age", FieldType.INT64),),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.db"
    return fresh_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
def empty(url):
    """Records that hold nothing."""
    records = Records.open(url)
    yield records
    records.close()


@pytest.fixture
def records(empty):
    """Records that hold a catalog `shop`."""
    empty.catalogs.create(SHOP)
    return empty
