"""Ids and their rows."""

from __future__ import annotations

import pyarrow as pa
import pytest

from milvine.models.vocabulary import Vocabulary


@pytest.mark.parametrize("repeats", [1, 5_000])
def test_ids_that_come_later_have_rows_of_their_own(repeats):
    """The rows before stay, however often ids are added and however many are looked up."""
    first = Vocabulary(["a", "b"])
    more = first.extended(["c"]).extended(["d", "e"])

    assert more.rows(["e", "b", "x", "c"] * repeats).tolist() == [4, 1, -1, 2] * repeats
    assert more.rows(pa.array(["d", "a"])).tolist() == [3, 0]
    assert more.take(more.rows(["a", "e"])) == ["a", "e"]
    assert (len(more), more.fixed) == (5, 2)
    assert (len(first), first.fixed) == (2, 2)
    assert first.rows(["c"]).tolist() == [-1]
