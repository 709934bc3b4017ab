"""Properties of the filter language that hold for any text and any tree."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from milvine.domain.errors import InvalidFilter, NotSupported
from milvine.domain.filter import (
    LITE,
    MILVUS,
    And,
    Comparison,
    Contains,
    Dialect,
    Filter,
    In,
    IsNull,
    Like,
    Not,
    Or,
    Scalar,
)
from milvine.filters import compile_filter, parse
from tests.unit.filters import trees

MANY = settings(max_examples=12 * settings().max_examples)
WORDS = (
    *("year", "title", "genres", "in_stock", "and", "or", "not", "in", "like", "is", "null", "=="),
    *("!=", "<", ">=", "(", ")", "[", "]", ",", "1", "-1.5", '"a"', "'b", "true", "{p}", "{", "\\"),
    *("array_contains", "array_contains_any", "!", "&&", "||", "=", "\n", "é", "\ud800", "\x00"),
)


@MANY
@given(filter_=trees.filters())
def test_a_written_tree_is_read_back(filter_: Filter):
    """The text of a tree parses to the same tree."""
    assert parse(write(filter_), {}, trees.FIELDS) == filter_


@MANY
@given(text=st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
@example("year == " + "9" * 5000)
@example("(" * 10_000)
@example("not " * 4_000 + "in_stock")
@example("in_stock and (" * 1_000 + "in_stock" + ")" * 1_000)
@example('title == "\ud800"')
@example('title == "\\ud800"')
@example('title like "a\\\\"')
@example('Added == "0001-01-01T00:00:00+23:00"')
@example("\u00a0")
def test_any_text_parses_or_is_refused(text: str):
    """Whatever a client sends, the parser returns a filter or raises InvalidFilter in the text."""
    try:
        parse(text, {}, trees.FIELDS)
    except InvalidFilter as fault:
        assert 1 <= fault.column <= len(text) + 1  # noqa: PT017 - most texts raise, some do not


@MANY
@given(filter_=trees.filters(), dialect=st.sampled_from([LITE, MILVUS]))
def test_values_stay_inside_their_literals(filter_: Filter, dialect: Dialect):
    """No value of a filter is read as syntax: outside string literals stand words we wrote."""
    try:
        expression = compile_filter(filter_, dialect)
    except NotSupported:
        return
    names = {name for field in trees.FIELDS for name in (field.name, f"_has_{field.name}")}
    known = {"id", "and", "or", "not", "in", "like", "true", "false", "e", "array_length"}
    known |= {"array_contains_any", "array_contains_all"} | names
    assert set(_words(expression)) <= known


@pytest.mark.parametrize("operator", ["and", "or"])
def test_long_chains_parse_and_compile(operator: str):
    """Chains of thousands of operands parse, and compile to a shallow expression."""
    text = f" {operator} ".join(["in_stock"] * 800 + ["year>1"] * 400)
    filter_ = parse(text, {}, trees.FIELDS)
    assert isinstance(filter_, And | Or)
    assert len(filter_.operands) == 1200
    wide = Or(tuple(In(trees.FIELDS[2], (n,)) for n in range(5000)))
    assert _depth(compile_filter(wide, LITE)) <= 14


def write(filter_: Filter) -> str:  # noqa: PLR0911 - a case for each kind of node
    """The text of a filter, in parentheses wherever it is joined."""
    match filter_:
        case Not(operand):
            return f"not ({write(operand)})"
        case And(operands):
            return " and ".join(f"({write(one)})" for one in operands)
        case Or(operands):
            return " or ".join(f"({write(one)})" for one in operands)
        case IsNull(field):
            return f"{field.name} is null"
        case Comparison(field, operator, value):
            return f"{field.name} {operator} {_value(value)}"
        case In(field, values):
            return f"{field.name} in {_value(values)}"
        case Like(field, pattern):
            return f"{field.name} like {_value(pattern)}"
        case Contains(field, values, all=every):
            function = "array_contains_all" if every else "array_contains_any"
            return f"{function}({field.name}, {_value(values)})"


def _value(value: Scalar | tuple[Scalar, ...]) -> str:
    match value:
        case tuple():
            return f"[{', '.join(map(_value, value))}]"
        case bool():
            return str(value).upper()
        case str():
            # JSON escapes characters beyond U+FFFF in halves, which the language does not take.
            return json.dumps(value, ensure_ascii=False).replace("\\/", "/")
        case datetime():
            return f'"{value.isoformat()}"'
        case _:
            return repr(value)


def _words(expression: str) -> list[str]:
    """The words of an expression outside its string literals."""
    words, word, position = [], "", 0
    while position < len(expression):
        sign = expression[position]
        if sign == '"':
            position += 1
            while expression[position] != '"':
                position += 2 if expression[position] == "\\" else 1
        if sign.isalpha() or sign == "_":
            word += sign
        elif word:
            words.append(word)
            word = ""
        position += 1
    return [*words, word] if word else words


def _depth(expression: str) -> int:
    depth = deepest = 0
    for sign in expression:
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    return deepest
