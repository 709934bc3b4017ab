"""What filters mean, and what the errors of bad ones say."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from milvine.domain.catalog import Field, FieldType
from milvine.domain.errors import InvalidFilter
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
)
from milvine.filters import ParamValue, parse

TITLE = Field("title", FieldType.STRING)
YEAR = Field("year", FieldType.INT64)
SCORE = Field("score", FieldType.DOUBLE)
SOLD = Field("sold", FieldType.BOOL)
ADDED = Field("added", FieldType.TIMESTAMP)
GENRES = Field("genres", FieldType.STRING_LIST)
CODES = Field("codes", FieldType.INT64_LIST)
ANDROID = Field("android", FieldType.INT64)
FIELDS = (TITLE, YEAR, SCORE, SOLD, ADDED, GENRES, CODES, ANDROID)
EQ, NE, LT, LE, GT, GE = Operator

YEAR_1 = Comparison(YEAR, EQ, 1)
YEAR_2 = Comparison(YEAR, EQ, 2)
YEAR_3 = Comparison(YEAR, EQ, 3)
IS_SOLD = Comparison(SOLD, EQ, value=True)
DAY = datetime(2024, 1, 31, tzinfo=UTC)

MEANINGS: dict[str, Filter] = {
    "year == 1": YEAR_1,
    "1 == year": YEAR_1,
    "1990 < year": Comparison(YEAR, GT, 1990),
    "year != -9223372036854775808": Comparison(YEAR, NE, -(2**63)),
    "year <= +5": Comparison(YEAR, LE, 5),
    "1990 <= year < 2000": And((Comparison(YEAR, GE, 1990), Comparison(YEAR, LT, 2000))),
    "2000 > year >= 1990": And((Comparison(YEAR, LT, 2000), Comparison(YEAR, GE, 1990))),
    "score >= 4": Comparison(SCORE, GE, 4.0),
    "score < -1.5e-3": Comparison(SCORE, LT, -0.0015),
    "score > .5 ": Comparison(SCORE, GT, 0.5),
    "title == 'it\\'s'": Comparison(TITLE, EQ, "it's"),
    r'title == "a\n\t\\\"\u00e9\x41\U0001F600"': Comparison(TITLE, EQ, 'a\n\t\\"éA😀'),
    'title == "a\nb"': Comparison(TITLE, EQ, "a\nb"),
    'title == "and or { } %"': Comparison(TITLE, EQ, "and or { } %"),
    "sold": IS_SOLD,
    "sold == TRUE": IS_SOLD,
    "sold != False": Comparison(SOLD, NE, value=False),
    'added >= "2024-01-31"': Comparison(ADDED, GE, DAY),
    'added >= "2024-01-31T01:00:00.5+01:00"': Comparison(
        ADDED, GE, DAY.replace(microsecond=500_000)
    ),
    'added == "2024-01-31t00:00:00z"': Comparison(ADDED, EQ, DAY),
    "year in [1, 2,]": In(YEAR, (1, 2)),
    "year IN []": In(YEAR, ()),
    "year not in [1]": Not(In(YEAR, (1,))),
    "year not\n  in [1]": Not(In(YEAR, (1,))),
    'title like "The %"': Like(TITLE, "The %"),
    r'title LIKE "100\\%"': Like(TITLE, r"100\%"),
    'array_contains(genres, "a")': Contains(GENRES, ("a",), all=False),
    "ARRAY_CONTAINS_ANY(codes, [1, 2])": Contains(CODES, (1, 2), all=False),
    "Array_Contains_All(codes, [])": Contains(CODES, (), all=True),
    'genres == ["a", "b"]': Comparison(GENRES, EQ, ("a", "b")),
    "[1] != codes": Comparison(CODES, NE, (1,)),
    "year is null": IsNull(YEAR),
    "year IS NOT NULL": Not(IsNull(YEAR)),
    "android == 1": Comparison(ANDROID, EQ, 1),
    "not sold": Not(IS_SOLD),
    "!sold": Not(IS_SOLD),
    "not not sold": Not(Not(IS_SOLD)),
    "not year == 1 and sold": And((Not(YEAR_1), IS_SOLD)),
    "not (year == 1 and sold)": Not(And((YEAR_1, IS_SOLD))),
    "year == 1 and year == 2 and year == 3": And((YEAR_1, YEAR_2, YEAR_3)),
    "year == 1 or year == 2 and year == 3": Or((YEAR_1, And((YEAR_2, YEAR_3)))),
    "year == 1 && year == 2 || year == 3": Or((And((YEAR_1, YEAR_2)), YEAR_3)),
    "(year == 1 or year == 2) AND year == 3": And((Or((YEAR_1, YEAR_2)), YEAR_3)),
    "(((year == 1)))": YEAR_1,
    "year==1and sold": And((YEAR_1, IS_SOLD)),
}

FAULTS: tuple[tuple[str, int, str], ...] = (
    ("yeer == 1", 1, "did you mean 'year'?"),
    ("sold and Year == 1", 10, "did you mean 'year'?"),
    ("xyzzy == 1", 1, "there are: title, year"),
    ("year", 1, "no condition alone"),
    ("1", 1, "the name of a field belongs here"),
    ("1 == 1", 1, "the name of a field belongs here"),
    ("year == android", 9, "not the name 'android'"),
    ("title == yes", 10, "strings stand in quotes"),
    ('year == "x"', 9, "'year' is INT64, it can't be compared with the string 'x'"),
    ("year == 1.5", 9, "whole number"),
    ("year == 9223372036854775808", 9, "64 bits"),
    ("year == true", 9, "the truth value true"),
    ("year in [1, 'a']", 13, "the string 'a'"),
    ("score < 1e999", 9, "finite"),
    ("score == " + "9" * 500, 10, "too long"),
    ("title == 5", 10, 'write a string in quotes: "Drama"'),
    ("sold == 1", 9, "write true or false"),
    ("sold > true", 6, "has no order"),
    ("genres < ['a']", 8, "has no order"),
    ("added > 5", 9, "2024-01-31T12:00:00Z"),
    ("added > '2024-13-01'", 9, "2024-01-31T12:00:00Z"),
    ("added > '2024-01-31T12:00:00'", 9, "2024-01-31T12:00:00Z"),
    ("genres == 'a'", 11, "a list belongs here"),
    ("genres in ['a']", 1, "array_contains_any"),
    ("year like 'a%'", 1, "`like` goes with STRING fields"),
    (r"title like 'a\\'", 12, "ends within an escape"),
    ("array_contains(year, 1)", 16, "no list"),
    ("array_contains(genres)", 1, "takes a list field and what it contains"),
    ("array_contains(genres, ['a'])", 24, "not a list"),
    ("array_contains_any(genres, 'a')", 28, "a list belongs here"),
    ("array_length(genres) == 1", 1, "functions are conditions of their own"),
    ("count(genres)", 1, "there are: array_contains,"),
    ("1 < year > 0", 10, "in one direction"),
    ("1 == year == 1", 11, "in one direction"),
    ("year < 1 < android", 10, "in the middle"),
    ("year = 1", 6, "write `==`"),
    ("sold & sold", 6, "write `and`"),
    ("title == 'abc", 10, "no closing '"),
    (r"title == 'a\q'", 10, r"the escape \q is unknown"),
    ("title == '\\u0000'", 10, "U+0000"),
    ("(year == 1", 11, "ends too early"),
    ("year == 1 and ", 15, "ends too early"),
    ("year == 1 year", 11, "'year' is not expected here; `and`"),
    ("year == 1)", 10, "')' is not expected here"),
    ("year @ 1", 6, "'@' is no part of the filter language"),
    ("sold and\n  yeer == 1", 12, "did you mean 'year'?"),
    ("title == '😀' and yeer == 1", 18, "did you mean 'year'?"),
    ("year in {missing}", 9, "filter_params has no 'missing'"),
    ("not " * 33 + "sold", 1, "nested more than 32 deep"),
    ("sold or " * 2100 + "sold", 1, "at most 16,384 bytes"),
)


@pytest.mark.parametrize("text", MEANINGS)
def test_text_means_its_tree(text: str):
    """A filter parses to the tree that it means."""
    assert parse(text, {}, FIELDS) == MEANINGS[text]


@pytest.mark.parametrize(("text", "column", "message"), FAULTS)
def test_faults_point_at_their_column(text: str, column: int, message: str):
    """A bad filter's error points at the offending token and names the way out."""
    with pytest.raises(InvalidFilter) as raised:
        parse(text, {}, FIELDS)
    assert message in raised.value.description
    assert raised.value.column == column


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_blank_text_filters_nothing(text: str):
    """An empty or blank filter is no filter."""
    assert parse(text, {}, FIELDS) is None


@pytest.mark.parametrize(
    ("text", "value", "meaning"),
    [
        ("year == {p}", 1, YEAR_1),
        ("{p} == year", 1, YEAR_1),
        ("year in {p}", (1, 2), In(YEAR, (1, 2))),
        ("year in [{p}, 2]", 1, In(YEAR, (1, 2))),
        ("year in {p}", (), In(YEAR, ())),
        ("genres == {p}", ("a",), Comparison(GENRES, EQ, ("a",))),
        ("array_contains(genres, {p})", "a", Contains(GENRES, ("a",), all=False)),
        ("array_contains_all(genres, {p})", ("a",), Contains(GENRES, ("a",), all=True)),
        ("title like {p}", "a%", Like(TITLE, "a%")),
        ("title == {p}", '" or sold', Comparison(TITLE, EQ, '" or sold')),
        ("added == {p}", DAY, Comparison(ADDED, EQ, DAY)),
        ("sold == {p}", True, IS_SOLD),
        ("year == {p} or year == {p}", 1, Or((YEAR_1, YEAR_1))),
    ],
)
def test_parameters_stand_for_values(text: str, value: ParamValue, meaning: Filter):
    """`{name}` takes its value from the parameters, checked like a literal."""
    assert parse(text, {"p": value}, FIELDS) == meaning


@pytest.mark.parametrize(
    ("text", "value", "column", "message"),
    [
        ("year == {p}", "x", 9, "the string 'x'"),
        ("year == {p}", True, 9, "the truth value true"),
        ("year == {p}", (1,), 9, "not a list"),
        ("year in {p}", 1, 9, "a list belongs here"),
        ("year in {p}", (1, "x"), 9, "the string 'x'"),
        ("score < {p}", float("nan"), 9, "finite"),
        ("score < {p}", float("-inf"), 9, "finite"),
        ("added < {p}", datetime(2024, 1, 1), 9, "time"),  # noqa: DTZ001 - has no zone: a fault
        ("title == {p}", "\x00", 10, "U+0000"),
        ("title == {p}", "\ud800", 10, "surrogate"),
        ("year in {p}", tuple(range(10_001)), 9, "at most 10,000 elements"),
        ("sold", 1, 1, "{p} does not stand in the filter"),
        (" ", 1, 1, "{p} does not stand in the filter"),
        ("title == '{p}'", 1, 1, "{p} does not stand in the filter"),
    ],
)
def test_parameters_are_checked(text: str, value: ParamValue, column: int, message: str):
    """A parameter that does not fit or does not stand in the filter is refused."""
    with pytest.raises(InvalidFilter) as raised:
        parse(text, {"p": value}, FIELDS)
    assert message in raised.value.description
    assert raised.value.column == column


def test_ten_thousand_elements_are_taken():
    """A list has up to 10,000 elements."""
    numbers = tuple(range(10_000))
    assert parse("year in {p}", {"p": numbers}, FIELDS) == In(YEAR, numbers)
