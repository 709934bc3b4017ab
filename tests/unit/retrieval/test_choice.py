"""How a search looks, by what is known of it."""

from __future__ import annotations

import pytest

from milvine.domain.hit import SearchMethod
from milvine.retrieval.choice import (
    GLANCES,
    LIMITS,
    MOST_AT_A_GLANCE,
    MOST_DROPPED,
    WELL_FOUND,
    glance,
    limit_of,
    method_for,
)
from milvine.retrieval.matching import MOST_SCORED

INDEX, EXACT = SearchMethod.INDEX, SearchMethod.EXACT
MANY = MOST_SCORED + 1


@pytest.mark.parametrize(
    ("is_exact", "total", "matching", "needed", "method"),
    [
        (False, 50_000, None, 21, EXACT),
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


@pytest.mark.parametrize(("is_shallow", "most"), [(True, WELL_FOUND), (False, MOST_AT_A_GLANCE)])
def test_the_first_look_holds_more_than_are_wanted(is_shallow, most):
    """It is one of a few sizes, and leaves room for what is dropped before the rest is scored."""
    for count in range(1, most + 1):
        first = glance(count, is_shallow=is_shallow)

        assert first in GLANCES
        assert first >= count + MOST_DROPPED
    assert glance(most + 1, is_shallow=is_shallow) == 0


@pytest.mark.parametrize(
    ("needed", "limit"), [(1, 128), (128, 128), (129, 512), (16_384, 16_384), (99_999, 16_384)]
)
def test_the_limit_is_the_least_that_is_enough(needed, limit):
    """Of the sizes that searches share; over the greatest it is that."""
    assert limit_of(needed) == limit
    assert limit in LIMITS
