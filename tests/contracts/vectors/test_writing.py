"""Building collections, and changing what they hold."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.domain.catalog import (
    MAX_FIELDS,
    Catalog,
    EventType,
    Field,
    FieldType,
    IndexKind,
    check,
)
from milvine.domain.errors import InvalidArgument
from milvine.domain.filter import Comparison, Operator
from milvine.filters import compile_filter
from milvine.vectors import CollectionMissing, CollectionSpec, Vectors
from tests.contracts.vectors.conftest import FIELDS, SOON, YEAR, collection

HOSTILE = [
    'a "quoted" id',
    "it's",
    "back\\slash\\",
    "new\nline\r\ttab",
    "100 % %41 %_",
    "') or id > ('",
    '"] or id not in ["',
    "emoji 😀 ünï\u2028",
    "\x01\x7f",
    "é" * 128,
    "'" * 256,
    "\\n",
    " ",
    "%",
]


def some_vectors(count: int, dimension: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


async def put(store: Vectors, spec: CollectionSpec, ids, rows=None, *, fresh=False, seed=0):
    fields = rows or [{} for _ in ids]
    vectors = some_vectors(len(ids), spec.dimension, seed)
    await store.write(spec, ids, vectors, fields, fresh=fresh, timeout_s=SOON)
    return vectors


@pytest.mark.parametrize("fresh", [True, False])
async def test_acknowledged_rows_are_seen_at_once_by_strong_reads(
    vectors: Vectors, shelf: CollectionSpec, fresh
):
    """What a write acknowledged is found, counted, fetched and matched."""
    written = await put(vectors, shelf, ["a", "b"], [{"year": 1}, {}], fresh=fresh)
    assert await vectors.count(shelf.name, timeout_s=SOON) == 2
    rows = await vectors.fetch(shelf, ["a"], fields=FIELDS, strong=True, timeout_s=SOON)
    assert [dict(row.fields) for row in rows] == [{"year": 1}]
    (hits,) = await vectors.search(shelf, written[1:], limit=1, strong=True, timeout_s=SOON)
    assert hits[0].score == pytest.approx(float(written[1] @ written[1]), rel=1e-4)
    found = await vectors.match(shelf, expression="", limit=9, strong=True, timeout_s=SOON)
    assert found == ["a", "b"]


async def test_an_upsert_replaces_the_whole_row(vectors: Vectors, shelf: CollectionSpec):
    """The vector and every field are the new ones; a field without a value is gone."""
    await put(vectors, shelf, ["a", "b"], [{"year": 1, "title": "x"}, {"year": 2}])
    newer = await put(vectors, shelf, ["a"], [{"price": 2.5}], seed=1)
    (row,) = await vectors.fetch(
        shelf, ["a"], fields=FIELDS, with_vector=True, strong=True, timeout_s=SOON
    )
    assert row.fields == {"price": 2.5}
    np.testing.assert_array_equal(row.vector, newer[0])
    assert await vectors.count(shelf.name, timeout_s=SOON) == 2


async def test_the_last_of_two_rows_of_one_id_stays(vectors: Vectors, shelf: CollectionSpec):
    """An upsert may name an id twice."""
    await put(vectors, shelf, ["a", "b", "a"], [{"year": 1}, {"year": 2}, {"year": 3}])
    (row,) = await vectors.fetch(shelf, ["a"], fields=[YEAR], strong=True, timeout_s=SOON)
    assert row.fields == {"year": 3}
    assert await vectors.count(shelf.name, timeout_s=SOON) == 2


async def test_deleted_rows_are_gone_for_strong_reads(vectors: Vectors, shelf: CollectionSpec):
    """A delete is seen at once, also of ids that there are not."""
    written = await put(vectors, shelf, ["a", "b"])
    await vectors.delete(shelf.name, ["a", "nobody"], timeout_s=SOON)
    assert await vectors.fetch(shelf, ["a"], strong=True, timeout_s=SOON) == []
    (hits,) = await vectors.search(shelf, written[:1], limit=5, strong=True, timeout_s=SOON)
    assert [hit.id for hit in hits] == ["b"]
    assert await vectors.count(shelf.name, timeout_s=SOON) == 1


async def test_any_id_is_written_found_replaced_and_deleted(
    vectors: Vectors, shelf: CollectionSpec
):
    """Ids of any characters, up to 256 bytes, are ids and never syntax."""
    for seed in (0, 1):
        written = await put(vectors, shelf, HOSTILE, seed=seed)
    assert await vectors.count(shelf.name, timeout_s=SOON) == len(HOSTILE)
    rows = await vectors.fetch(shelf, HOSTILE, with_vector=True, strong=True, timeout_s=SOON)
    assert {row.id for row in rows} == set(HOSTILE)
    for row in rows:
        np.testing.assert_array_equal(row.vector, written[HOSTILE.index(row.id)])
    found = await vectors.match(shelf, expression="", limit=99, strong=True, timeout_s=SOON)
    assert sorted(found) == sorted(HOSTILE)
    (hits,) = await vectors.search(shelf, written[:1], limit=99, strong=True, timeout_s=SOON)
    assert {hit.id for hit in hits} == set(HOSTILE)
    for id_ in HOSTILE:
        await vectors.delete(shelf.name, [id_], timeout_s=SOON)
    assert await vectors.count(shelf.name, timeout_s=SOON) == 0


@pytest.mark.parametrize("bad", [np.ones((2, 3), np.float32), np.full((2, 4), np.inf, np.float32)])
async def test_a_bad_vector_changes_nothing(vectors: Vectors, shelf: CollectionSpec, bad):
    """A write is checked as a whole before anything is sent."""
    await put(vectors, shelf, ["a"], [{"year": 1}])
    with pytest.raises(InvalidArgument):
        await vectors.write(shelf, ["a", "b"], bad, [{}, {}], fresh=False, timeout_s=SOON)
    (row,) = await vectors.fetch(shelf, ["a"], fields=[YEAR], strong=True, timeout_s=SOON)
    assert row.fields == {"year": 1}


async def test_the_largest_values_are_kept(vectors: Vectors, shelf: CollectionSpec):
    """Values at their limits come back whole, also where a batch exceeds a message."""
    row = {
        "title": "é" * 32_767,
        "year": -(2**63),
        "genres": ("x" * 1_024,) * 1_024,
        "codes": tuple(range(2**63 - 1_024, 2**63)),
    }
    ids = [f"big-{n}" for n in range(10)]
    await put(vectors, shelf, ids, [row] * 10)
    (found,) = await vectors.fetch(shelf, ["big-9"], fields=FIELDS, strong=True, timeout_s=SOON)
    assert found.fields == row
    assert await vectors.count(shelf.name, timeout_s=SOON) == 10


WORDS = ("Timestamp", "RowID", "interval", "ISO", "threshold", "text_match", "random_sample")


async def test_as_many_fields_as_can_be_of_any_name_are_kept(vectors: Vectors):
    """A collection takes the most fields of a catalog, also named as Milvus's own words."""
    names = [*WORDS, *(f"f{n}" for n in range(MAX_FIELDS - len(WORDS)))]
    fields = tuple(Field(name, FieldType.INT64) for name in names)
    check(Catalog("largest", (EventType("view"),), item_fields=fields, user_fields=fields))
    spec = collection(4, fields)
    await vectors.create(spec, timeout_s=SOON)
    await vectors.seal(spec, timeout_s=SOON)
    row = {name: number for number, name in enumerate(names)}
    await put(vectors, spec, ["a", "b"], [row, {}])

    (found,) = await vectors.fetch(spec, ["a"], fields=fields, strong=True, timeout_s=SOON)

    assert found.fields == row
    for number, field in enumerate(fields):
        filter_ = compile_filter(Comparison(field, Operator.EQ, number), vectors.dialect)
        assert await vectors.match(
            spec, expression=filter_, limit=9, strong=True, timeout_s=SOON
        ) == ["a"]


async def test_create_replaces_a_collection_of_the_same_name(
    vectors: Vectors, shelf: CollectionSpec
):
    """A rebuilt release starts empty, with the shape of the new spec."""
    await put(vectors, shelf, ["a"])
    await vectors.create(shelf, timeout_s=SOON)
    await vectors.seal(shelf, timeout_s=SOON)
    assert await vectors.count(shelf.name, timeout_s=SOON) == 0


async def test_match_goes_beyond_the_rows_of_a_query(vectors: Vectors):
    """20,000 ids match; Milvus gives 16,384 a query."""
    spec = collection(2, (YEAR,))
    await vectors.create(spec, timeout_s=SOON)
    ids = [f"i{n:05}" for n in np.random.default_rng(3).permutation(20_000)]
    rows = [{"year": n % 2} for n in range(20_000)]
    await put(vectors, spec, ids, rows, fresh=True)
    await vectors.seal(spec, timeout_s=SOON)
    extra = ["h", "j"]
    await put(vectors, spec, extra)
    assert await vectors.match(
        spec, expression="", limit=50_000, strong=True, timeout_s=SOON
    ) == sorted(ids + extra)
    odd = sorted(id_ for id_, row in zip(ids, rows, strict=True) if row["year"])
    condition = "year == 1"
    assert await vectors.match(spec, expression=condition, limit=9_999, timeout_s=SOON) == odd[:-1]
    await vectors.drop(spec.name, timeout_s=SOON)


@pytest.mark.parametrize("kind", list(IndexKind))
async def test_every_kind_of_index_answers(vectors: Vectors, kind):
    """A declared index is built, or the nearest that the engine has, and finds the rows."""
    spec = collection(8, kind=kind, ivf_clusters=4, ivf_search_clusters=9)
    await vectors.create(spec, timeout_s=SOON)
    ids = [str(n) for n in range(1_200)]
    written = await put(vectors, spec, ids, fresh=True)
    await vectors.seal(spec, timeout_s=SOON)
    queries = written[:50]
    answers = await vectors.search(spec, queries, limit=10, timeout_s=SOON)
    exact = np.argsort(-(queries @ written.T), axis=1)[:, :10]
    shares = [
        len({hit.id for hit in hits} & set(map(str, rows))) / 10
        for hits, rows in zip(answers, exact, strict=True)
    ]
    assert np.mean(shares) >= 0.99
    await vectors.drop(spec.name, timeout_s=SOON)


async def test_an_alias_follows_its_collection(vectors: Vectors, shelf: CollectionSpec):
    """Where there are aliases, pointing creates one and moves it; else it does nothing."""
    alias = f"a_{shelf.name}"
    await put(vectors, shelf, ["a"])
    other = collection(4)
    await vectors.create(other, timeout_s=SOON)
    await vectors.point(alias, other.name, timeout_s=SOON)
    await vectors.point(alias, shelf.name, timeout_s=SOON)
    if vectors.has_aliases:
        assert await vectors.count(alias, timeout_s=SOON) == 1
    await vectors.drop(other.name, timeout_s=SOON)


async def test_a_collection_is_dropped_with_its_aliases(vectors: Vectors):
    """An alias keeps no collection from being dropped, and does not outlive it."""
    spec = collection(4)
    await vectors.create(spec, timeout_s=SOON)
    aliases = [f"a{n}_{spec.name}" for n in range(2)]
    for alias in aliases:
        await vectors.point(alias, spec.name, timeout_s=SOON)
    await vectors.drop(spec.name, timeout_s=SOON)
    assert spec.name not in await vectors.list(timeout_s=SOON)
    if vectors.has_aliases:
        for alias in aliases:
            with pytest.raises(CollectionMissing):
                await vectors.count(alias, timeout_s=SOON)
    await vectors.drop(spec.name, timeout_s=SOON)
