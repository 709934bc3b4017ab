"""Records in a file of each test's own, with two catalogs."""

from __future__ import annotations

import pytest

from milvine.domain.catalog import Catalog, EventType, Field, FieldType, ValueMeaning
from milvine.records import Records

SHOP = Catalog(
    "shop",
    (
        EventType("view"),
        EventType("rate", value_meaning=ValueMeaning.RATING),
    ),
    item_fields=(
        Field("title", FieldType.STRING),
        Field("year", FieldType.INT64),
        Field("price", FieldType.DOUBLE),
        Field("new", FieldType.BOOL),
        Field("released", FieldType.TIMESTAMP),
        Field("genres", FieldType.STRING_LIST),
        Field("sizes", FieldType.INT64_LIST),
    ),
)
FILMS = Catalog("films", (EventType("rate", value_meaning=ValueMeaning.RATING),))


@pytest.fixture
def records(tmp_path):
    """An empty SQLite database with the catalogs."""
    opened = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    try:
        for catalog in (SHOP, FILMS):
            opened.catalogs.create(catalog)
        yield opened
    finally:
        opened.close()
