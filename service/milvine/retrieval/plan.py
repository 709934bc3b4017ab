"""What a selection comes to on a release: an expression, the fields to return, how many hits."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from milvine.domain.catalog import Field
from milvine.domain.errors import InvalidArgument
from milvine.domain.filter import Dialect, Scalar
from milvine.domain.query import Selection
from milvine.filters import compile_filter, parse

MAX_EXPRESSION = 4 << 20
"""The longest compiled filter, in characters; it travels with each search."""
_CACHED_LENGTH = 16 << 10
"""Longer filters are compiled anew each time: such lists hardly come twice."""
_CACHED_FILTERS = 1_024


@dataclass(frozen=True, slots=True)
class Plan:
    """A selection, made ready for the vector store."""

    expression: str
    fields: tuple[Field, ...]
    """The fields to return."""
    page_size: int


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
            InvalidFilter: The filter does not parse or type-check.
            InvalidArgument: A field to return is not declared, or the compiled filter is too long.
        """
        fields = _fields(selection.return_fields, scope.fields)
        if not selection.filter and not selection.filter_params:
            return Plan("", fields, selection.page_size)
        expression = await self._expression(scope, selection)
        return Plan(expression, fields, selection.page_size)

    async def _expression(self, scope: Scope, selection: Selection) -> str:
        key = (scope.name, selection.filter, _key(selection))
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        # A long list may take more than a second.
        expression = await asyncio.to_thread(self._compile, scope, selection)
        if len(expression) <= _CACHED_LENGTH:
            self._compiled[key] = expression
        if len(self._compiled) > _CACHED_FILTERS:
            self._compiled.popitem(last=False)
        return expression

    def _compile(self, scope: Scope, selection: Selection) -> str:
        tree = parse(selection.filter, selection.filter_params, scope.fields, scope.later)
        expression = compile_filter(tree, self._dialect)
        if len(expression) > MAX_EXPRESSION:
            raise InvalidArgument.at(
                "filter",
                f"comes to {len(expression):,} characters for this vector store, "
                f"at most {MAX_EXPRESSION:,} are taken; shorten its lists",
            )
        return expression


def _key(selection: Selection) -> tuple[object, ...]:
    """The parameters with their types: 1, 1.0 and True are equal and not the same."""
    return tuple(
        (name, value, _types(value)) for name, value in sorted(selection.filter_params.items())
    )


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
