"""Searching, matching and fetching what a sealed collection holds."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.domain.errors import DeadlineExceeded, InvalidArgument
from milvine.vectors import CollectionMissing, Vectors
from tests.contracts.vectors.conftest import FIELDS, SOON, YEAR, Library, collection


def best(library: Library, query: np.ndarray, limit: int, allowed=None) -> list[str]:
    """The exact answer."""
    scores = library.vectors @ query
    if allowed is not None:
        scores = np.where([allowed(row) for row in library.rows], scores, -np.inf)
    order = np.argsort(-scores)[: min(limit, int(np.isfinite(scores).sum()))]
    return [library.ids[row] for row in order]


def recall(found: list[str], expected: list[str]) -> float:
    return len(set(found) & set(expected)) / len(expected)


async def test_search_finds_the_rows_of_greatest_inner_product(vectors: Vectors, library: Library):
    """A search equals the exact one, for every query of the request, scores included."""
    queries = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
    answers = await vectors.search(library.spec, queries, limit=10, timeout_s=SOON)
    assert len(answers) == 20
    for query, hits in zip(queries, answers, strict=True):
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        rows = [library.ids.index(hit.id) for hit in hits]
        np.testing.assert_allclose(
            [hit.score for hit in hits], library.vectors[rows] @ query, rtol=1e-4
        )
    exact = [best(library, query, 10) for query in queries]
    found = [[hit.id for hit in hits] for hits in answers]
    assert np.mean([recall(*pair) for pair in zip(found, exact, strict=True)]) >= 0.99


@pytest.mark.parametrize("expression", ["", "_has_year == true and year >= 1950"])
async def test_a_search_leaves_ids_out(vectors: Vectors, library: Library, expression):
    """What a search is to be without is not found; the next best are."""
    query = library.vectors[7]
    allowed = (lambda r: r.get("year", 0) >= 1950) if expression else None
    first = best(library, query, 40, allowed)
    (hits,) = await vectors.search(
        library.spec,
        query[np.newaxis],
        limit=10,
        expression=expression,
        without=first[:30],
        timeout_s=SOON,
    )
    assert recall([hit.id for hit in hits], first[30:]) >= 0.9


async def test_a_limit_over_the_rows_gives_every_row(vectors: Vectors, library: Library):
    """The cap of a search is Milvus's, 16,384; fewer rows are all found."""
    query = library.vectors[:1]
    (hits,) = await vectors.search(library.spec, query, limit=16_384, timeout_s=SOON)
    assert {hit.id for hit in hits} == set(library.ids)


async def test_no_query_gives_no_answer(vectors: Vectors, library: Library):
    """A search without queries asks nothing."""
    nothing = np.empty((0, 16), dtype=np.float32)
    assert await vectors.search(library.spec, nothing, limit=3, timeout_s=SOON) == []


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("_has_year == true and year >= 1950", lambda r: r.get("year", 0) >= 1950),
        ("_has_year == true and year in [1901, 1902]", lambda r: r.get("year") in (1901, 1902)),
        ("price < 50.5 and _has_price == true", lambda r: r.get("price", 99) < 50.5),
        ("_has_is_new == true and is_new == false", lambda r: r.get("is_new", True) is False),
        ('title == "The 7th"', lambda r: r.get("title") == "The 7th"),
        ('title like "The 1%"', lambda r: r.get("title", "").startswith("The 1")),
        ('array_contains(genres, "g2")', lambda r: "g2" in r.get("genres", ())),
        ("array_contains_any(codes, [7, -8])", lambda r: bool({7, -8} & set(r.get("codes", ())))),
        ("added >= 1577836830000000", lambda r: "added" in r and r["added"].second >= 30),
        ("_has_title == false", lambda r: not r),
    ],
)
async def test_an_expression_filters_by_typed_columns(
    vectors: Vectors, library: Library, expression, allowed
):
    """Matches are exactly the rows whose values say so; missing ones are told by the flag."""
    expected = [id_ for id_, row in zip(library.ids, library.rows, strict=True) if allowed(row)]
    found = await vectors.match(library.spec, expression=expression, limit=5_000, timeout_s=SOON)
    assert sorted(found) == sorted(expected)
    (hits,) = await vectors.search(
        library.spec, library.vectors[:1], limit=5, expression=expression, timeout_s=SOON
    )
    assert {hit.id for hit in hits} <= set(expected)


async def test_fields_of_every_type_come_back_as_they_were(vectors: Vectors, library: Library):
    """Search and fetch give each value back with its type, and no field without a value."""
    (hits,) = await vectors.search(
        library.spec, library.vectors[4:5], limit=50, fields=FIELDS, timeout_s=SOON
    )
    written = dict(zip(library.ids, library.rows, strict=True))
    assert {hit.id: dict(hit.fields) for hit in hits} == {hit.id: written[hit.id] for hit in hits}
    assert any(hit.fields for hit in hits)
    assert not all(hit.fields for hit in hits)
    rows = await vectors.fetch(library.spec, library.ids[:1_500], fields=FIELDS, timeout_s=SOON)
    assert {row.id: dict(row.fields) for row in rows} == {
        id_: written[id_] for id_ in library.ids[:1_500]
    }


async def test_only_the_fields_that_were_asked_for_come_back(vectors: Vectors, library: Library):
    """Other fields stay on the server."""
    (row,) = await vectors.fetch(library.spec, ["book-1"], fields=[YEAR], timeout_s=SOON)
    assert row.fields == {"year": 1901}
    assert row.vector is None
    (hits,) = await vectors.search(library.spec, library.vectors[:1], limit=2, timeout_s=SOON)
    assert [dict(hit.fields) for hit in hits] == [{}, {}]


async def test_fetch_gives_the_vectors_of_those_that_exist(vectors: Vectors, library: Library):
    """Unknown ids are left out; vectors are float32 and exact."""
    asked = ["book-5", "nobody", "book-2"]
    rows = await vectors.fetch(library.spec, asked, with_vector=True, timeout_s=SOON)
    assert {row.id for row in rows} == {"book-5", "book-2"}
    for row in rows:
        assert row.vector is not None
        assert row.vector.dtype == np.float32
        np.testing.assert_array_equal(row.vector, library.vectors[library.ids.index(row.id)])


async def test_fetch_gives_those_that_match(vectors: Vectors, library: Library):
    """With an expression, only the rows among the ids that match come back."""
    asked = ["book-3", "book-5", "nobody", "book-60"]
    chosen = [
        id_
        for id_, row in zip(library.ids, library.rows, strict=True)
        if id_ in asked and row.get("year", 0) > 1904
    ]
    rows = await vectors.fetch(
        library.spec,
        asked,
        expression="_has_year == true and year > 1904",
        fields=[YEAR],
        timeout_s=SOON,
    )
    assert sorted(row.id for row in rows) == sorted(chosen)
    assert 0 < len(chosen) < 3


async def test_matches_are_counted(vectors: Vectors, library: Library):
    """A count is of the rows that match: none, some, or every row for no expression."""
    expression = "_has_year == true and year > 1904"
    chosen = sum(row.get("year", 0) > 1904 for row in library.rows)
    assert await vectors.count_matching(library.spec, expression, timeout_s=SOON) == chosen
    assert await vectors.count_matching(library.spec, "year > 9999", timeout_s=SOON) == 0
    assert await vectors.count_matching(library.spec, "", timeout_s=SOON) == 3_000


async def test_match_gives_the_smallest_ids(vectors: Vectors, library: Library):
    """A limit cuts after the order of ids."""
    found = await vectors.match(library.spec, expression="", limit=10, timeout_s=SOON)
    assert found == sorted(library.ids)[:10]


async def test_count_and_names_are_exact(vectors: Vectors, library: Library):
    """A sealed collection is listed, loaded and counted."""
    assert await vectors.count(library.spec.name, timeout_s=SOON) == 3_000
    assert library.spec.name in await vectors.list(timeout_s=SOON)
    assert await vectors.is_loaded(library.spec.name, timeout_s=SOON)


@pytest.mark.parametrize(
    "query", [np.ones((1, 3), np.float32), np.full((1, 16), np.nan, np.float32)]
)
async def test_a_query_of_another_shape_is_refused(vectors: Vectors, library: Library, query):
    """A wrong dimension and a value that is not finite are the caller's fault."""
    with pytest.raises(InvalidArgument):
        await vectors.search(library.spec, query, limit=3, timeout_s=SOON)


async def test_a_missing_collection_is_told(vectors: Vectors):
    """Reads of a collection that does not exist say so; dropping it is no error."""
    spec = collection(16)
    query = np.ones((1, 16), np.float32)
    with pytest.raises(CollectionMissing):
        await vectors.search(spec, query, limit=3, timeout_s=SOON)
    with pytest.raises(CollectionMissing):
        await vectors.count(spec.name, timeout_s=SOON)
    assert not await vectors.is_loaded(spec.name, timeout_s=SOON)
    await vectors.drop(spec.name, timeout_s=SOON)


async def test_a_spent_deadline_is_told(vectors: Vectors, library: Library):
    """A call that can't end in time says so."""
    with pytest.raises(DeadlineExceeded):
        await vectors.search(library.spec, library.vectors[:1], limit=3, timeout_s=1e-6)
