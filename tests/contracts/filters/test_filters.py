"""Filters match what they mean on every engine: the compiled expression against the oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings

from milvine.domain.catalog import VectorIndex
from milvine.domain.errors import NotSupported
from milvine.domain.filter import (
    LITE,
    MILVUS,
    And,
    Comparison,
    Contains,
    Dialect,
    Filter,
    In,
    Like,
    Not,
    Operator,
    Or,
)
from milvine.filters import compile_filter
from milvine.vectors import CollectionSpec, Vectors
from tests.filter_oracle import evaluate
from tests.servers.milvus import run_lite
from tests.unit.filters import trees

ROWS = trees.entities(400, seed=7)
IDS = [f"row-{number:03d}" for number in range(len(ROWS))]
SPEC = CollectionSpec("filters", 2, trees.FIELDS, VectorIndex())
TITLE, NOTES, YEAR, ANDROID, IN_STOCK, ADDED, GENRES, CODES = trees.FIELDS
TIMEOUT_S = 60.0


class Engine:
    """A vector store that holds the rows."""

    def __init__(self, runner: asyncio.Runner, vectors: Vectors, dialect: Dialect) -> None:
        self.dialect = dialect
        self._runner = runner
        self.vectors = vectors

    def ids(self, expression: str) -> list[str]:
        """The ids of the rows that the store matches."""
        match = self.vectors.match(
            SPEC, expression=expression, limit=len(IDS) + 1, timeout_s=TIMEOUT_S
        )
        return self._runner.run(match)

    def check(self, filter_: Filter) -> None:
        """Assert that the store matches what the oracle does."""
        expected = [key for key, row in zip(IDS, ROWS, strict=True) if evaluate(filter_, row)]
        expression = compile_filter(filter_, self.dialect)
        assert self.ids(expression) == expected, expression


@contextmanager
def filled(uri: str, dialect: Dialect) -> Iterator[Engine]:
    """The store at the URI with all rows written, some sealed and some still growing."""
    with asyncio.Runner() as runner:
        vectors = runner.run(Vectors.connect(uri))
        engine = Engine(runner, vectors, dialect)
        runner.run(vectors.create(SPEC, timeout_s=TIMEOUT_S))
        half = len(ROWS) // 2
        _write(runner, vectors, slice(0, half))
        runner.run(vectors.seal(SPEC, timeout_s=TIMEOUT_S))
        _write(runner, vectors, slice(half, None))
        # Counting waits for every write; later reads see no less.
        assert runner.run(vectors.count(SPEC.name, timeout_s=TIMEOUT_S)) == len(IDS)
        yield engine
        runner.run(vectors.drop(SPEC.name, timeout_s=TIMEOUT_S))
        runner.run(vectors.close())


def _write(runner: asyncio.Runner, vectors: Vectors, part: slice) -> None:
    ids, rows = IDS[part], ROWS[part]
    zeros = np.zeros((len(ids), 2), dtype=np.float32)
    runner.run(vectors.write(SPEC, ids, zeros, rows, fresh=True, timeout_s=TIMEOUT_S))


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with run_lite(Path(tmp_path_factory.mktemp("lite"))) as uri, filled(uri, LITE) as engine:
        yield engine


@pytest.fixture(scope="module")
def server(milvus_uri: str) -> Iterator[Engine]:
    with filled(milvus_uri, MILVUS) as engine:
        yield engine


@pytest.fixture(params=["lite", pytest.param("server", marks=pytest.mark.server)])
def engine(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.getfixturevalue(request.param)
    return engine


def _title(operator: Operator, text: str) -> Filter:
    return Comparison(TITLE, operator, text)


def _deep(levels: int) -> Filter:
    """`not (year == 1 and not (year == 1 and ...))`."""
    tree: Filter = Comparison(YEAR, Operator.EQ, 1)
    for _ in range(levels // 2):
        tree = Not(And((Comparison(YEAR, Operator.GE, 1), tree)))
    return tree


EXACT: dict[str, Filter] = {
    "lowest int": Comparison(YEAR, Operator.EQ, -(2**63)),
    "lowest int in a list": In(YEAR, (-(2**63), 1)),
    "lowest int in a list field": Contains(CODES, (-(2**63),), all=False),
    "an integer against DOUBLE in a list": In(ANDROID, (1, 0.1)),
    "smallest double": Comparison(ANDROID, Operator.EQ, 5e-324),
    "nothing in an empty list": In(YEAR, ()),
    "everything not in an empty list": Not(In(YEAR, ())),
    "no operand of and": And(()),
    "no operand of or": Or(()),
    "newline": _title(Operator.EQ, "a\nc"),
    "carriage return and newline": _title(Operator.EQ, "a\r\nc"),
    "quotes and backslashes": In(TITLE, ('a"c', "it's", "\\", "a\\", "\\n", 'a" or id != "')),
    "any text": Like(TITLE, "%"),
    "not any text": Not(Like(TITLE, "%")),
    "an empty pattern": Like(TITLE, ""),
    "some text": Like(TITLE, "_%"),
    "a prefix": Like(TITLE, "a%"),
    "not a prefix": Not(Like(TITLE, "a%")),
    "a prefix and more": Not(Like(TITLE, "a_%")),
    "a prefix that ends in the last character": Like(TITLE, "a\U0010ffff%"),
    "an escaped wildcard": Like(TITLE, r"a\%c"),
    "a prefix with an escaped wildcard": Like(TITLE, r"a\_%"),
    "an empty list": Comparison(GENRES, Operator.EQ, ()),
    "not an empty list": Comparison(GENRES, Operator.NE, ()),
    "a list": Comparison(GENRES, Operator.EQ, ("", "a")),
    "another list": Not(Comparison(CODES, Operator.EQ, (0, 1))),
    "none of an empty list": Contains(GENRES, (), all=False),
    "all of an empty list": Contains(GENRES, (), all=True),
    "not all of an empty list": Not(Contains(GENRES, (), all=True)),
    "not any": Not(Contains(GENRES, ("a", "it's"), all=False)),
    "not all": Not(Contains(CODES, (0, 1, 2), all=True)),
    "many operands": Or(tuple(Comparison(YEAR, Operator.EQ, n) for n in range(-500, 500))),
    "many values": In(YEAR, tuple(range(10_000))),
    "many texts": Not(In(TITLE, tuple(f"text {n}" for n in range(5000)))),
    "any of many": Contains(CODES, tuple(range(10_000)), all=False),
    "all of more than a list has": Contains(CODES, tuple(range(10_000)), all=True),
    "not all of more than a list has": Not(Contains(CODES, tuple(range(10_000)), all=True)),
    "a list that is too long": Comparison(CODES, Operator.EQ, (0,) * 10_000),
    "not a list that is too long": Comparison(CODES, Operator.NE, (0,) * 10_000),
    "deep": _deep(32),
}
"""Filters that one of the engines gets wrong, or refuses, when written in the obvious way."""
ONLY_LITE: dict[str, Filter] = {
    "an infix": Like(TITLE, "%a%"),
    "a suffix": Like(TITLE, "%c"),
    "a gap": Like(TITLE, "a%c"),
    "a gap after a backslash": Like(TITLE, r"a\\%c"),
    "one character": Like(TITLE, "_"),
    "one character between": Like(TITLE, "a_c"),
    "one character at the end": Like(TITLE, "a_"),
    "one character after a backslash": Like(TITLE, r"\\_"),
    "at least one character": Like(TITLE, "%_c"),
}
"""Patterns that the oldest server does not know."""


@pytest.mark.parametrize("name", EXACT)
def test_special_ways_are_exact(engine: Engine, name: str):
    """What the engines understand only in a special way matches exactly what it means."""
    engine.check(EXACT[name])


@pytest.mark.parametrize("name", ONLY_LITE)
def test_lite_matches_patterns(lite: Engine, name: str):
    """On Lite wildcards stand anywhere, and one stands for one character, not for one byte."""
    lite.check(ONLY_LITE[name])


@pytest.mark.server
def test_the_dialects_are_those_of_the_engines(lite: Engine, server: Engine):
    """The adapter names the dialect that the tests prove."""
    assert (lite.vectors.dialect, server.vectors.dialect) == (LITE, MILVUS)


MANY = settings(max_examples=12 * settings().max_examples)


@MANY
@given(filter_=trees.filters())
def test_lite_matches_what_the_filter_means(lite: Engine, filter_: Filter):
    """Lite matches exactly what a filter and its negation mean, or says that it can't."""
    _check_both_senses(lite, filter_)


@pytest.mark.server
@MANY
@given(filter_=trees.filters())
def test_the_server_matches_what_the_filter_means(server: Engine, filter_: Filter):
    """The server matches exactly what a filter and its negation mean, or says that it can't."""
    _check_both_senses(server, filter_)


def _check_both_senses(engine: Engine, filter_: Filter) -> None:
    for sense in (filter_, Not(filter_)):
        try:
            engine.check(sense)
        except NotSupported as refusal:
            event(refusal.message)
