"""Random fields, entities and filters for the property tests, with hostile values."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import INT64_MAX, INT64_MIN, FieldValue
from milvine.domain.filter import (
    And,
    Comparison,
    Contains,
    Filter,
    In,
    IsNull,
    Like,
    Not,
    Operator,
    Or,
    Scalar,
)

TEXTS = (
    *("", "a", "b", "ab", "abc", "abd", "aXc", "aéc", "a😀c", "é", "éé", "😀", "中文", "c", "%"),
    *("_", "a%c", "a_c", "\\", "a\\", "\\\\", "a\\c", "a\\%c", "\\n", '"', "'", 'a"c', "it's"),
    *("a\nc", "\n", "\r\n", "a\r\nc", "\t", "\x01", "\x7f", "\u0080", "\u07ff", "\u0800"),
    *("\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "a\U0010ffff", "{x}", "$meta"),
    *('a" or id != "', "a' or id != '", "%' --", "[x]", "^a.c$", "(a|c)*", "null", "true", "A"),
)
"""Texts that are alike, that end literals, that parsers or regular expressions take as syntax."""
PATTERN_PARTS = ("%", "_", "a", "c", "é", "😀", r"\%", r"\_", r"\\", "\n", ".", '"', "b", r"\a")
INTS = (0, 1, -1, 2, 10, 1990, INT64_MAX, INT64_MIN, INT64_MIN + 1, INT64_MAX - 1, 2**53 + 1)
DOUBLES = (0.0, -0.0, 1.0, -1.5, 0.1, 1e300, -1e-300, 5e-324, 2.0**53, 1.7976931348623157e308, 1e16)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = (
    _EPOCH,
    _EPOCH - timedelta(microseconds=1),
    datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
)
VALUES: dict[FieldType, tuple[Scalar, ...]] = {
    FieldType.STRING: TEXTS,
    FieldType.INT64: INTS,
    FieldType.DOUBLE: DOUBLES,
    FieldType.BOOL: (True, False),
    FieldType.TIMESTAMP: TIMES,
    FieldType.STRING_LIST: TEXTS,
    FieldType.INT64_LIST: INTS,
}
"""The values, or elements of lists, of each type."""
FIELDS = (
    Field("title", FieldType.STRING),
    Field("notes", FieldType.STRING),
    Field("year", FieldType.INT64),
    Field("android", FieldType.DOUBLE),
    Field("in_stock", FieldType.BOOL),
    Field("Added", FieldType.TIMESTAMP),
    Field("genres", FieldType.STRING_LIST),
    Field("codes", FieldType.INT64_LIST),
)


def entities(count: int, seed: int) -> list[dict[str, FieldValue]]:
    """Random entities; a quarter of the values is missing."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [
        {field.name: _value(chance, field) for field in FIELDS if chance.random() < 0.75}
        for _ in range(count)
    ]


def _value(chance: random.Random, field: Field) -> FieldValue:
    pool = VALUES[field.type]
    if not field.type.is_list:
        return chance.choice(pool)
    few = pool[: chance.choice((3, len(pool)))]
    return tuple(chance.choice(few) for _ in range(chance.randrange(4)))


def filters(depth: int = 3) -> st.SearchStrategy[Filter]:
    """Random trees over the fields, at most that deep."""
    leaf = st.one_of([leaves(field) for field in FIELDS])
    if depth == 0:
        return leaf
    inner = filters(depth - 1)
    some = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(leaf, st.builds(Not, inner), st.builds(And, some), st.builds(Or, some))


def leaves(field: Field) -> st.SearchStrategy[Filter]:
    """Random leaves over a field."""
    value = st.sampled_from(VALUES[field.type])
    several = st.lists(value, max_size=4).map(tuple)
    null = st.just(IsNull(field))
    if field.type.is_list:
        return st.one_of(
            null,
            st.builds(Contains, st.just(field), several, st.booleans()),
            st.builds(Comparison, st.just(field), st.sampled_from(list(Operator)[:2]), several),
        )
    signs = list(Operator)[: 2 if field.type is FieldType.BOOL else 6]
    choices: list[st.SearchStrategy[Filter]] = [
        null,
        st.builds(Comparison, st.just(field), st.sampled_from(signs), value),
        st.builds(In, st.just(field), several),
    ]
    if field.type is FieldType.STRING:
        choices += [st.builds(Like, st.just(field), patterns())] * 2
    return st.one_of(choices)


def patterns() -> st.SearchStrategy[str]:
    """Random patterns of `like`."""
    return st.lists(st.sampled_from(PATTERN_PARTS), max_size=5).map("".join)
