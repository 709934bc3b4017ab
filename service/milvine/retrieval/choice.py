"""How to look for the best items: by the index, how far, or exactly."""

from __future__ import annotations

from milvine.domain.hit import SearchMethod
from milvine.retrieval.matching import MOST_SCORED

MAX_LIMIT = 16_384
"""The most hits that a Milvus returns to a query."""
LIMITS = (128, 512, 2_048, 8_192, MAX_LIMIT)
"""How many hits a search may ask for. Fewer sizes are fewer searches; candidates cost little."""
GLANCES = (32, 64, 128)
"""How many hits a search asks for first. Of 50,000 items a graph found 32 in two thirds of the time
that 128 took it, with as many candidates and so with the same first ones."""
SPARE = 40
"""So many more than are wanted mostly hold enough that are not excluded."""
MOST_AT_A_GLANCE = 100
"""Up to so many hits are wanted, they may be among the first."""
WELL_FOUND = 20
"""A graph finds so many first hits well, and those behind them worse and worse. Of 50,000 clustered
vectors with skewed norms it found .99 of the best 20, .97 of the 20 after the best 5, .93 after the
best 10, .80 after the best 20, and .38 after the best 50; with four times the candidates .998,
.994, .98, .94 and .67."""
FIELDS_WITH_SEARCH = 128
"""Up to so many hits, their fields travel with the search; else they are fetched for the best."""
MOST_FETCHED = 512
"""Up to so many hits, the index is asked for more than are needed, to drop those that are excluded:
of 50,000 items 128, 512 and 2,048 hits took it 2.4, 3.5 and 7.7 ms, and exact scoring with its
look-up 3 to 4 ms."""
MOST_DROPPED = 4
"""Where more than so many of a graph's first hits are excluded, all are scored."""
WIDE = 2_048
"""A graph loses results under a filter, and fewer where it is asked for more."""


def method_for(*, is_exact: bool, total: int, matching: int | None, needed: int) -> SearchMethod:
    """How to look for the best items where the first hits of the index are not enough.

    | index | filter        | hits and excluded ids     | way                                     |
    |-------|---------------|---------------------------|-----------------------------------------|
    | other | none, few     | any                       | EXACT, over all items                   |
    | exact | none          | more than MOST_FETCHED    | EXACT, over all items                   |
    | exact | any           | at most MOST_FETCHED      | INDEX                                   |
    | exact | few match     | more                      | EXACT, over what matches                |
    | other | few match     | any                       | EXACT, over what matches                |
    | any   | many match    | at most MAX_LIMIT         | INDEX, WIDE if it is not exact          |
    | any   | many match    | more                      | INDEX, with the ids in the expression   |

    Few are at most MOST_SCORED: scoring 50,000 items of 64 dimensions takes less time than the
    index does, and loses nothing. A graph of 50,000 clustered vectors with skewed norms found .99
    of the best 20 without a filter, .82 where 70 % matched, and .44 at 30 %, whatever the number
    of its candidates. So it answers only without a filter, what the WELL_FOUND first hits can with
    at most MOST_DROPPED of them excluded. Of more than MOST_SCORED items up to MAX_LIMIT hits come
    from the index without a filter, too, for scoring takes longer.

    Args:
        is_exact: Whether the index scans all rows.
        total: How many items there are.
        matching: How many match; None without a filter, and where an exact index is asked.
        needed: How many hits, with those that are excluded.
    """
    scored = total if matching is None else matching
    if scored > MOST_SCORED:
        is_left = needed <= MAX_LIMIT or matching is not None
        return SearchMethod.INDEX if is_left else SearchMethod.EXACT
    if not is_exact:
        return SearchMethod.EXACT
    return SearchMethod.INDEX if needed <= MOST_FETCHED else SearchMethod.EXACT


def glance(count: int, *, is_shallow: bool) -> int:
    """How many hits to ask for first where `count` are wanted; 0 where these are too many.

    `is_shallow` says that what lies behind the first hits is scored, not searched for.
    """
    if count > (WELL_FOUND if is_shallow else MOST_AT_A_GLANCE):
        return 0
    needed = count + (MOST_DROPPED if is_shallow else SPARE)
    return next((limit for limit in GLANCES if limit >= needed), GLANCES[-1])


def limit_of(needed: int) -> int:
    """The least number of hits that a search asks for and that is enough, or the greatest."""
    return next((limit for limit in LIMITS if limit >= needed), MAX_LIMIT)
