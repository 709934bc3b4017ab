"""From the syntax of a filter to its tree: names become fields, literals become typed values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import TypeAlias, TypeVar

from milvine.domain.catalog import Field, FieldType
from milvine.domain.errors import InvalidFilter
from milvine.domain.filter import (
    MAX_ELEMENTS,
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
from milvine.filters import syntax, values
from milvine.filters.values import BadValueError

_T = TypeVar("_T")

ParamValue: TypeAlias = Scalar | tuple[Scalar, ...]
"""The value of a `{name}` in a filter: one value, or the values of a list."""

_MIRRORED = {
    Operator.LT: Operator.GT,
    Operator.LE: Operator.GE,
    Operator.GT: Operator.LT,
    Operator.GE: Operator.LE,
}
_ORDERLESS = (Operator.EQ, Operator.NE)
_RANGES = ({Operator.LT, Operator.LE}, {Operator.GT, Operator.GE})
_FUNCTIONS = ("array_contains", "array_contains_any", "array_contains_all")


class Binding:
    """Binds one filter to the declared fields and the parameters of a request."""

    def __init__(
        self,
        params: Mapping[str, ParamValue],
        declared: Sequence[Field],
        later: Collection[str] = (),
    ) -> None:
        self.used: set[str] = set()
        self._later = later
        self._params = params
        self._declared = {field.name: field for field in declared}

    def bind(self, node: syntax.Node) -> Filter:  # noqa: PLR0911 - a case for each kind of node
        """The tree of a node; as deep as the node, which is bounded."""
        match node:
            case syntax.Joined(operator, operands, _):
                join = And if operator == "and" else Or
                return join(tuple(self.bind(operand) for operand in operands))
            case syntax.Negated(operand, _):
                return Not(self.bind(operand))
            case syntax.Alone(operand):
                return self._alone(operand)
            case syntax.Compared((left, right), (operator,), column):
                return self._comparison(left, Operator(operator), right, column)
            case syntax.Compared(operands, operators, column):
                return self._range(operands, [Operator(sign) for sign in operators], column)
            case syntax.Contained(subject, listed):
                field = self._scalar_field(subject, "`in`", "array_contains_any(field, [...])")
                return In(field, self._list(listed, field))
            case syntax.Alike(subject, pattern):
                return self._like(subject, pattern)
            case syntax.Null(subject):
                return IsNull(self._field(subject))
            case syntax.Called():
                return self._call(node)

    def _alone(self, operand: syntax.Operand) -> Filter:
        field = self._field(operand)
        if field.type is not FieldType.BOOL:
            raise InvalidFilter(
                f"{field.name!r} is {field.type} and no condition alone; compare it with a value",
                operand.column,
            )
        return Comparison(field, Operator.EQ, value=True)

    def _comparison(
        self, left: syntax.Operand, operator: Operator, right: syntax.Operand, column: int
    ) -> Filter:
        if not isinstance(left, syntax.Name) and isinstance(right, syntax.Name):
            left, operator, right = right, _MIRRORED.get(operator, operator), left
        field = self._field(left)
        if operator not in _ORDERLESS and (field.type.is_list or field.type is FieldType.BOOL):
            raise InvalidFilter(
                f"{field.name!r} is {field.type}, which has no order; compare with == or !=", column
            )
        value = self._list(right, field) if field.type.is_list else self._scalar(right, field)
        return Comparison(field, operator, value)

    def _range(
        self, operands: tuple[syntax.Operand, ...], operators: list[Operator], column: int
    ) -> Filter:
        low, name, high = operands
        if not any(set(operators) <= signs for signs in _RANGES):
            raise InvalidFilter(
                "a range is written `1990 <= year < 2000`, with both signs in one direction", column
            )
        if isinstance(low, syntax.Name) or isinstance(high, syntax.Name):
            raise InvalidFilter(
                "the field of a range stands in the middle: `1990 <= year < 2000`", column
            )
        first, second = operators
        return And(
            (
                self._comparison(low, first, name, column),
                self._comparison(name, second, high, column),
            )
        )

    def _like(self, subject: syntax.Operand, operand: syntax.Operand) -> Filter:
        field = self._scalar_field(subject, "`like`", "array_contains(field, value)")
        if field.type is not FieldType.STRING:
            raise InvalidFilter(
                f"{field.name!r} is {field.type}; `like` goes with STRING fields", subject.column
            )
        pattern = str(self._scalar(operand, field))
        escaped_end = len(pattern) - len(pattern.rstrip("\\"))
        if escaped_end % 2:
            raise InvalidFilter(
                r"the pattern ends within an escape; `like` takes \\ for a backslash",
                operand.column,
            )
        return Like(field, pattern)

    def _call(self, call: syntax.Called) -> Filter:
        function = call.function.lower()
        if function not in _FUNCTIONS:
            raise InvalidFilter(
                f"there is no function {call.function!r}; there are: {', '.join(_FUNCTIONS)}",
                call.column,
            )
        if len(call.arguments) != 2:
            raise InvalidFilter(f"{function} takes a list field and what it contains", call.column)
        subject, operand = call.arguments
        field = self._field(subject)
        if not field.type.is_list:
            raise InvalidFilter(
                f"{field.name!r} is {field.type} and no list; compare it with == or in",
                subject.column,
            )
        if function == "array_contains":
            return Contains(field, (self._scalar(operand, field),), all=False)
        return Contains(field, self._list(operand, field), all=function.endswith("all"))

    def _scalar_field(self, operand: syntax.Operand, what: str, instead: str) -> Field:
        field = self._field(operand)
        if field.type.is_list:
            raise InvalidFilter(
                f"{field.name!r} is {field.type}, {what} goes with single values; write {instead}",
                operand.column,
            )
        return field

    def _field(self, operand: syntax.Operand) -> Field:
        if not isinstance(operand, syntax.Name):
            raise InvalidFilter("the name of a field belongs here, not a value", operand.column)
        field = self._declared.get(operand.text)
        if field is None:
            raise InvalidFilter(self._unknown(operand.text), operand.column)
        return field

    def _unknown(self, name: str) -> str:
        if name in self._later:
            return (
                f"{name!r} was declared after the release was built; publish again to filter by it"
            )
        # Case is the usual slip, and `get_close_matches` counts it as a full difference.
        by_folded = {known.lower(): known for known in self._declared}
        close = get_close_matches(name.lower(), by_folded, 1)
        if close:
            return f"there is no field {name!r}; did you mean {by_folded[close[0]]!r}?"
        known = ", ".join(self._declared) or "none"
        return f"there is no field {name!r}; there are: {known}"

    def _scalar(self, operand: syntax.Operand, field: Field) -> Scalar:
        value = self._value(operand)
        if isinstance(value, tuple):
            raise InvalidFilter(
                f"a single value belongs here for {field.name!r}, not a list", operand.column
            )
        return _at(operand.column, lambda: values.fit(value, field))

    def _list(self, operand: syntax.Operand, field: Field) -> tuple[Scalar, ...]:
        if isinstance(operand, syntax.List):
            return self._bounded(
                tuple(self._scalar(element, field) for element in operand.elements), operand
            )
        value = self._value(operand)
        if not isinstance(value, tuple):
            raise InvalidFilter(
                f"a list belongs here for {field.name!r}, as [1, 2] or {{name}}; found "
                f"{values.describe(value)}",
                operand.column,
            )
        fitted = _at(operand.column, lambda: tuple(values.fit(one, field) for one in value))
        return self._bounded(fitted, operand)

    def _bounded(self, listed: tuple[Scalar, ...], operand: syntax.Operand) -> tuple[Scalar, ...]:
        if len(listed) > MAX_ELEMENTS:
            raise InvalidFilter(
                f"a list has at most {MAX_ELEMENTS:,} elements, this has {len(listed):,}",
                operand.column,
            )
        return listed

    def _value(self, operand: syntax.Operand) -> ParamValue:
        match operand:
            case syntax.Literal("STRING", text, column):
                return _at(column, lambda: values.unquote(text))
            case syntax.Literal("NUMBER", text, column):
                return _at(column, lambda: values.number(text))
            case syntax.Literal(kind, _, _):
                return kind == "TRUE"
            case syntax.Parameter(name, column):
                return self._parameter(name, column)
            case syntax.Name(text, column):
                raise InvalidFilter(
                    f"a value belongs here, not the name {text!r}; strings stand in quotes", column
                )
            case syntax.List(_, column):
                raise InvalidFilter("a single value belongs here, not a list", column)

    def _parameter(self, name: str, column: int) -> ParamValue:
        if name not in self._params:
            known = ", ".join(self._params) or "none"
            raise InvalidFilter(f"filter_params has no {name!r}; it has: {known}", column)
        self.used.add(name)
        return self._params[name]


def _at(column: int, made: Callable[[], _T]) -> _T:
    """What `made` returns; a value that does not fit becomes an error at the column."""
    try:
        return made()
    except BadValueError as exc:
        raise InvalidFilter(str(exc), column) from exc
