"""What a selection comes to on a release: an expression, the fields to return, how many hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from milvine.domain.catalog import Field
from milvine.domain.errors import InvalidArgument
from milvine.domain.filter import Dialect, Scalar
from milvine.domain.query import Selection
from milvine.filters import compile_filter, parse

_Params: TypeAlias = tuple[tuple[str, Scalar | tuple[Scalar, ...]], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A selection, made ready for the vector store."""

    expression: str
    fields: tuple[Field, ...]
    """The fields to return."""
    page_size: int


def plan(selection: Selection, declared: tuple[Field, ...], dialect: Dialect) -> Plan:
    """Make a selection ready for a release with these fields.

    Raises:
        InvalidFilter: The filter does not parse or type-check.
        InvalidArgument: A field to return is not declared.
    """
    params = tuple(sorted(selection.filter_params.items()))
    expression = _expression(selection.filter, params, _types(params), declared, dialect)
    fields = _fields(selection.return_fields, declared)
    return Plan(expression, fields, selection.page_size)


def _types(params: _Params) -> str:
    values = ((value if isinstance(value, tuple) else (value,)) for _, value in params)
    return ";".join(",".join(type(v).__name__ for v in value) for value in values)


@lru_cache(maxsize=1024)
def _expression(
    text: str,
    params: _Params,
    types: str,  # noqa: ARG001 - a part of the key: 1, 1.0 and True are equal and not the same
    declared: tuple[Field, ...],
    dialect: Dialect,
) -> str:
    """The compiled filter; cached, for services send the same few filters again and again."""
    return compile_filter(parse(text, dict(params), declared), dialect)


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
