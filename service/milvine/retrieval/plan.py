"""What a selection comes to on a release: expressions, fields, how many hits and their ranking."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from milvine.domain.catalog import Field, FieldType
from milvine.domain.errors import InvalidArgument, InvalidFilter
from milvine.domain.filter import Dialect, Scalar
from milvine.domain.query import Selection
from milvine.domain.ranking import (
    BY_SCORE,
    Boost,
    Cap,
    Diversity,
    Factor,
    NumberDecay,
    Ranking,
    TimeDecay,
)
from milvine.filters import compile_filter, parse

MAX_EXPRESSION = 4 << 20
"""The longest compiled filter, in characters; it travels with each search."""
_CACHED_LENGTH = 16 << 10
"""Longer filters are compiled anew each time: such lists hardly come twice."""
_CACHED_FILTERS = 1_024


_NUMBERS = (FieldType.INT64, FieldType.DOUBLE)
_TIMES = (FieldType.TIMESTAMP,)
_COUNTABLE = tuple(kind for kind in FieldType if kind is not FieldType.DOUBLE)

Params: TypeAlias = Mapping[str, Scalar | tuple[Scalar, ...]]
"""The values of a filter's placeholders."""


@dataclass(frozen=True, slots=True)
class PlannedBoost:
    """A boost, made ready."""

    kind: Factor | NumberDecay | TimeDecay
    expression: str
    """What it applies to; empty for everything."""
    field: Field | None
    """What a decay looks at."""


@dataclass(frozen=True, slots=True)
class PlannedCap:
    """A cap, made ready."""

    field: Field
    most: int


@dataclass(frozen=True, slots=True)
class PlannedRanking:
    """A ranking, made ready."""

    boosts: tuple[PlannedBoost, ...]
    diversity: Diversity | None
    caps: tuple[PlannedCap, ...]


BY_MODEL = PlannedRanking((), None, ())
"""By the scores of the whole model."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A selection, made ready for the vector store."""

    expression: str
    fields: tuple[Field, ...]
    """The fields to return."""
    page_size: int
    ranking: PlannedRanking | None = None
    """None: by the model's score alone."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The side of a release that a selection is for."""

    name: str
    """No other release or side has it."""
    fields: tuple[Field, ...]
    """What the release can filter by and return."""
    later: frozenset[str] = frozenset()
    """Names that were declared after it was built."""


class Planner:
    """Makes selections ready; services send the same few filters again and again."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._compiled: OrderedDict[object, str] = OrderedDict()

    async def plan(self, scope: Scope, selection: Selection) -> Plan:
        """Make a selection ready.

        Raises:
            InvalidFilter: A filter does not parse or type-check.
            InvalidArgument: A field is not declared or of the wrong type, a field has two caps, or
                a compiled filter is too long.
        """
        fields = _fields(selection.return_fields, scope.fields)
        expression = await self._expression(scope, selection.filter, selection.filter_params)
        ranking = await self._ranking(scope, selection.ranking)
        return Plan(expression, fields, selection.page_size, ranking)

    async def _ranking(self, scope: Scope, ranking: Ranking) -> PlannedRanking | None:
        if ranking == BY_SCORE:
            return None
        boosts = [
            await self._boost(scope, boost, f"ranking.boosts[{i}]")
            for i, boost in enumerate(ranking.boosts)
        ]
        return PlannedRanking(tuple(boosts), ranking.diversity, _caps(scope, ranking.caps))

    async def _boost(self, scope: Scope, boost: Boost, path: str) -> PlannedBoost:
        expression = await self._expression(scope, boost.filter, boost.filter_params, f"{path}.")
        match boost.kind:
            case Factor():
                field = None
            case NumberDecay(name):
                field = _field(scope, name, f"{path}.number_decay.field", _NUMBERS)
            case TimeDecay(name):
                field = _field(scope, name, f"{path}.time_decay.field", _TIMES)
        return PlannedBoost(boost.kind, expression, field)

    async def _expression(self, scope: Scope, text: str, params: Params, path: str = "") -> str:
        """The expression of a filter that stands at a path in the request."""
        if not text and not params:
            return ""
        key = (scope.name, text, _key(params))
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        # A long list may take more than a second.
        expression = await asyncio.to_thread(self._compile, scope, text, params, path)
        if len(expression) <= _CACHED_LENGTH:
            self._compiled[key] = expression
        if len(self._compiled) > _CACHED_FILTERS:
            self._compiled.popitem(last=False)
        return expression

    def _compile(self, scope: Scope, text: str, params: Params, path: str) -> str:
        try:
            tree = parse(text, params, scope.fields, scope.later)
        except InvalidFilter as fault:
            at = path + fault.violations[0].field
            raise InvalidFilter(fault.description, fault.column, at) from fault
        expression = compile_filter(tree, self._dialect)
        if len(expression) > MAX_EXPRESSION:
            raise InvalidArgument.at(
                f"{path}filter",
                f"comes to {len(expression):,} characters for this vector store, "
                f"at most {MAX_EXPRESSION:,} are taken; shorten its lists",
            )
        return expression


def _key(params: Params) -> tuple[object, ...]:
    """The parameters with their types: 1, 1.0 and True are equal and not the same."""
    return tuple((name, value, _types(value)) for name, value in sorted(params.items()))


def _types(value: Scalar | tuple[Scalar, ...]) -> tuple[type, ...]:
    return tuple(map(type, value)) if isinstance(value, tuple) else (type(value),)


def _fields(names: Sequence[str], declared: tuple[Field, ...]) -> tuple[Field, ...]:
    if tuple(names) == ("*",):
        return declared
    by_name = {field.name: field for field in declared}
    for i, name in enumerate(names):
        if name not in by_name:
            known = ", ".join(by_name) or "none"
            raise InvalidArgument.at(
                f"return_fields[{i}]", f"{name!r} is not a field of the release; it has: {known}"
            )
    return tuple(by_name[name] for name in dict.fromkeys(names))


def _caps(scope: Scope, caps: Sequence[Cap]) -> tuple[PlannedCap, ...]:
    planned: dict[str, PlannedCap] = {}
    for i, cap in enumerate(caps):
        path = f"ranking.caps[{i}].field"
        field = _field(scope, cap.field, path, _COUNTABLE)
        if cap.field in planned:
            raise InvalidArgument.at(path, f"{cap.field!r} has a cap already; a field takes one")
        planned[cap.field] = PlannedCap(field, cap.most)
    return tuple(planned.values())


def _field(scope: Scope, name: str, path: str, kinds: Collection[FieldType]) -> Field:
    """The field of that name, which has to be of one of some types."""
    field = next((field for field in scope.fields if field.name == name), None)
    if field is None and name in scope.later:
        raise InvalidArgument.at(
            path, f"{name!r} was declared after the release was built; publish again to rank by it"
        )
    if field is None or field.type not in kinds:
        fault = f"is {field.type}" if field else "is not a field of the release"
        fitting = ", ".join(one.name for one in scope.fields if one.type in kinds) or "none"
        raise InvalidArgument.at(
            path, f"{name!r} {fault}; it takes {_any_of(kinds)}, of which there are: {fitting}"
        )
    return field


def _any_of(kinds: Collection[FieldType]) -> str:
    *others, last = map(str, kinds)
    return f"{', '.join(others)} or {last}" if others else last
