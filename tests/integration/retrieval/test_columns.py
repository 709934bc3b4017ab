"""Values of items by row, as new as the release, however many ask for them."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from milvine.artifacts import Artifacts
from milvine.domain.catalog import Catalog, EventType, Field, FieldType, VectorIndex
from milvine.domain.entity import Entity, Side
from milvine.domain.errors import DeadlineExceeded, Reason, Unavailable
from milvine.domain.release import Release, ReleaseState
from milvine.models.serving import load_serving_model
from milvine.records import Records
from milvine.retrieval import Active
from milvine.retrieval.columns import Columns
from milvine.text import same_encoder
from tests.made_model import store_model

YEAR, AUTHOR = Field("year", FieldType.INT64), Field("author", FieldType.STRING)
IDS = [f"i{n}" for n in range(50)]
ROWS = np.arange(50, dtype=np.int32)
PATIENT_S = 20.0


@pytest.fixture
def records(tmp_path):
    """Records of one catalog: half of the items have a year."""
    opened = Records.open(f"sqlite:///{tmp_path / 'records.db'}")
    opened.catalogs.create(Catalog("c", (EventType("view"),), item_fields=(YEAR, AUTHOR)))
    items = [
        Entity(id_, {"author": f"a{n % 3}", **({"year": n} if n % 2 else {})})
        for n, id_ in enumerate(IDS)
    ]
    opened.entities.upsert("c", Side.ITEM, items)
    yield opened
    opened.close()


@pytest.fixture
def active(records, tmp_path):
    """A release that has followed everything."""
    artifacts = Artifacts(str(tmp_path / "artifacts"))
    model = store_model(records, artifacts, "c", IDS, np.eye(50, 4, dtype=np.float32))
    release = Release("r", "c", model.id, ReleaseState.READY, (YEAR, AUTHOR), (), VectorIndex())
    served = load_serving_model(artifacts, model, same_encoder)
    yield Active(records.catalogs.get("c"), release, served, (), records.catalogs.revision("c"))
    artifacts.close()


class Counted:
    """Records that count the pages that are read of them, and can be away."""

    def __init__(self, records):
        self.catalogs = records.catalogs
        self._records = records
        self.reads = 0
        self.is_away = False

    @property
    def entities(self):
        """Each look is a page."""
        if self.is_away:
            raise Unavailable("the database does not answer", Reason.RECORDS_UNAVAILABLE)
        self.reads += 1
        return self._records.entities


async def years(columns, active, *, timeout_s=PATIENT_S):
    """The years of all items, None where there is none."""
    found = await columns.read(active, ROWS, numbers=[YEAR], timeout_s=timeout_s)
    return [None if np.isnan(year) else int(year) for year in found.numbers["year"]]


async def test_values_are_those_of_the_records(records, active):
    """Each row has its item's value, or none."""
    columns = Columns(records)

    assert await years(columns, active) == [n if n % 2 else None for n in range(50)]


async def test_requests_at_one_time_share_a_load(records, active):
    """However many ask for however many fields, each is read once."""
    counted = Counted(records)
    columns = Columns(counted)

    async def ask():
        return await columns.read(
            active, ROWS, numbers=[YEAR], labels=[AUTHOR], timeout_s=PATIENT_S
        )

    found = await asyncio.gather(*(ask() for _ in range(20)))

    assert counted.reads == 1
    assert {one.labels["author"].count for one in found} == {3}


async def test_changes_are_read_once_the_release_followed_them(records, active):
    """New, changed and deleted values show with the release's revision, and unknown items don't."""
    counted = Counted(records)
    columns = Columns(counted)
    before = await years(columns, active)
    changed = [Entity("i0", {"year": 2000}), Entity("i1", {}), Entity("new", {"year": 1})]
    records.entities.upsert("c", Side.ITEM, changed)
    records.entities.delete("c", Side.ITEM, ["i3"])

    assert await years(columns, active) == before
    followed = dataclasses.replace(active, revision=records.catalogs.revision("c"))
    assert await years(columns, followed) == [2000, None, None, None, *before[4:]]
    reads = counted.reads
    assert await years(columns, followed) == [2000, None, None, None, *before[4:]]
    assert counted.reads == reads


async def test_what_was_read_serves_while_the_records_are_away(records, active):
    """Old values are better than none; where there are none, the fault is told."""
    counted = Counted(records)
    columns = Columns(counted)
    known = await years(columns, active)
    counted.is_away = True
    later = dataclasses.replace(active, revision=active.revision + 1)

    assert await years(columns, later) == known
    with pytest.raises(Unavailable):
        await columns.read(later, ROWS, labels=[AUTHOR], timeout_s=PATIENT_S)


async def test_a_load_goes_on_when_its_request_was_given_up(records, active):
    """The next request finds what the first one had no time for."""
    counted = Counted(records)
    columns = Columns(counted)
    with pytest.raises(DeadlineExceeded):
        await years(columns, active, timeout_s=0.0)

    await years(columns, active)

    assert counted.reads == 1


async def test_the_longest_unused_go_first(records, active):
    """Columns over the limit are let go, but for the one that is in use."""
    counted = Counted(records)
    columns = Columns(counted, most_bytes=1)
    await years(columns, active)
    await years(columns, active)
    assert counted.reads == 1
    await columns.read(active, ROWS, labels=[AUTHOR], timeout_s=PATIENT_S)

    await years(columns, active)

    assert counted.reads == 3
