"""How a search looks, by what is known of it."""

from __future__ import annotations

import pytest

from milvine.domain.hit import SearchMethod
from milvine.retrieval.search import MOST_SCORED, method_for

INDEX, EXACT = SearchMethod.INDEX, SearchMethod.EXACT
MANY = MOST_SCORED + 1


@pytest.mark.parametrize(
    ("is_exact", "total", "matching", "needed", "method"),
    [
        (False, 50_000, None, 20, INDEX),
        (False, 50_000, None, 10_020, EXACT),
        (True, 10_000, None, 20, INDEX),
        (True, 10_000, None, 1_000, EXACT),
        (True, 10_000, 12, 1_000, EXACT),
        (False, 50_000, 50_000, 20, EXACT),
        (False, 50_000, 0, 20, EXACT),
        (False, 10 * MANY, 100, 20, EXACT),
        (False, MANY, None, 10_020, INDEX),
        (False, MANY, None, 100_020, EXACT),
        (False, MANY, MANY, 20, INDEX),
        (True, MANY, MANY, 100_020, INDEX),
    ],
)
def test_the_table_of_cases(is_exact, total, matching, needed, method):
    """A graph under a filter is never asked where what matches can be scored."""
    found = method_for(is_exact=is_exact, total=total, matching=matching, needed=needed)

    assert found is method
