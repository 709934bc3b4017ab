"""How filters are written for the vector stores."""

from __future__ import annotations

import pytest

from milvine.domain.catalog import Field, FieldType
from milvine.domain.errors import NotSupported
from milvine.domain.filter import LITE, MILVUS, Comparison, Dialect, Filter, Not, Operator
from milvine.filters import compile_filter, parse

FIELDS = (
    Field("title", FieldType.STRING),
    Field("year", FieldType.INT64),
    Field("score", FieldType.DOUBLE),
    Field("sold", FieldType.BOOL),
    Field("added", FieldType.TIMESTAMP),
    Field("genres", FieldType.STRING_LIST),
)
ALIKE = {
    "": "",
    "year == 1990": "year == 1990",
    "year == 0": "(_has_year == true and year == 0)",
    "year != 1990": "(_has_year == true and year != 1990)",
    "year != 0": "year != 0",
    "not year == 1990": "(_has_year == true and year != 1990)",
    "not year != 0": "(_has_year == true and year == 0)",
    "year > 0": "year > 0",
    "year < 1990": "(_has_year == true and year < 1990)",
    "1990 <= year < 2000": "(year >= 1990 and (_has_year == true and year < 2000))",
    "year == -9223372036854775808": "year == -9223372036854775807 - 1",
    "year in [1, 2]": "year in [1, 2]",
    "year not in [0, 1]": "year not in [0, 1]",
    "year not in [1]": "(_has_year == true and year not in [1])",
    "year in []": 'id == ""',
    "year not in []": "_has_year == true",
    "year is null": "_has_year == false",
    "year is not null": "_has_year == true",
    "not (year is not null)": "_has_year == false",
    "score > 4": "score > 4.0",
    "score in [1, 2.5]": "score in [1.0, 2.5]",
    "sold": "sold == true",
    "not sold": "(_has_sold == true and sold != true)",
    "added > '2024-01-01'": "added > 1704067200000000",
    'title == "a\\"b\\\\c"': r'title == "a\"b\\c"',
    "title like 'The %'": 'title >= "The " and title < "The!"',
    "not title like 'a%'": '(_has_title == true and (title < "a" or title >= "b"))',
    "title like 'abc'": 'title == "abc"',
    "genres == ['a', 'b']": (
        '(genres[1] == "b" and (array_length(genres) == 2 and genres[0] == "a"))'
    ),
    "array_contains(genres, 'a')": 'array_contains_any(genres, ["a"])',
    "array_contains_all(genres, ['a', 'b'])": 'array_contains_all(genres, ["a", "b"])',
    "array_contains_all(genres, [])": "_has_genres == true",
    "array_contains_any(genres, [])": 'id == ""',
    "not (year > 5 and title == 'a')": (
        '((_has_year == true and year <= 5) or (_has_title == true and title != "a"))'
    ),
    "year == 1 or year == 2 or year == 3 or year == 4": (
        "((year == 1 or year == 2) or (year == 3 or year == 4))"
    ),
    "year == 1 or year in []": "year == 1",
}
REFUSED = (
    ("title like '%love%'", MILVUS, "only with text and a final %"),
    ("title like 'a_c'", MILVUS, "only with text and a final %"),
    ("not title like '%love%'", LITE, "can't negate"),
    ("title like '__'", LITE, "understands `_`"),
    ("title like '%a_'", LITE, "understands `_`"),
    (r"title == 'a\rb'", LITE, "carriage return"),
    ("not array_contains_all(genres, ['1','2','3','4','5','6','7','8','9'])", LITE, "at most 8"),
)


@pytest.mark.parametrize("dialect", [LITE, MILVUS])
@pytest.mark.parametrize("text", ALIKE)
def test_expressions_for_every_store(text: str, dialect: Dialect):
    """What all stores understand is written alike, with a guard only where it is needed."""
    expected = ALIKE[text]
    written = compile_filter(parse(text, {}, FIELDS), dialect)
    assert written in (expected, f"({expected})")


def test_negated_calls():
    """A negated function is `not (...)` on a server; on Lite no place of the list may match."""
    tree = parse("not array_contains(genres, 'a')", {}, FIELDS)
    assert compile_filter(tree, MILVUS) == (
        '(_has_genres == true and not (array_contains_any(genres, ["a"])))'
    )
    on_lite = compile_filter(tree, LITE)
    assert on_lite.count("not in") == 1024
    assert 'genres[1023] not in ["a"]' in on_lite


def test_line_ends_in_literals():
    """Line ends are escapes where the store decodes them, else they stand after a backslash."""
    tree = parse(r'title == "a\nb\r\n"', {}, FIELDS)
    assert compile_filter(tree, MILVUS) == r'title == "a\nb\r\n"'
    assert compile_filter(tree, LITE) == 'title == "a\\\nb\\\r\n"'


@pytest.mark.parametrize(("text", "dialect", "message"), REFUSED)
def test_what_a_store_cannot_say_is_refused(text: str, dialect: Dialect, message: str):
    """A filter that a store has no exact way to say raises NotSupported and says what."""
    tree = parse(text, {}, FIELDS)
    with pytest.raises(NotSupported, match=message):
        compile_filter(tree, dialect)


@pytest.mark.parametrize("call", ["array_contains_any(genres, {p})", "array_contains(genres, {p})"])
def test_what_a_negation_repeats_is_short(call: str):
    """Lite repeats the values of a negated function 1,024 times; long ones are refused."""
    long = ("x" * 3_100,) if "any" in call else "x" * 3_100
    tree = parse(f"not {call}", {"p": long}, FIELDS)
    assert len(compile_filter(tree, MILVUS)) < 4_000
    with pytest.raises(NotSupported, match="at most 3,072 characters"):
        compile_filter(tree, LITE)


@pytest.mark.parametrize("dialect", [LITE, MILVUS])
def test_no_list_has_more_than_1024_elements(dialect: Dialect):
    """A list never has, or is, more than a list can be; its complement needs a value alone."""
    many = tuple(map(str, range(1_025)))
    for text in ("array_contains_all(genres, {p})", "genres == {p}"):
        parsed = parse(text, {"p": many}, FIELDS)
        assert parsed
        assert compile_filter(parsed, dialect) == 'id == ""'
        assert compile_filter(Not(parsed), dialect) == "_has_genres == true"


@pytest.mark.parametrize("dialect", [LITE, MILVUS])
def test_the_deepest_filter_compiles(dialect: Dialect):
    """Every nesting that parses has an expression, even under long chains."""
    text = "year == 1"
    for _ in range(16):
        text = f"(year == 2 and (year == 3 or {text}))"
    assert compile_filter(parse(text, {}, FIELDS), dialect)


def test_two_negations_cancel():
    """A tree built by hand may nest negations; they cancel."""
    tree: Filter = Comparison(FIELDS[1], Operator.EQ, 5)
    assert compile_filter(Not(Not(tree)), LITE) == "year == 5"
