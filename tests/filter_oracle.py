"""What a filter means, in plain Python: the oracle of the property tests."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

from milvine.domain.entity import FieldValue
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

_COMPARE: dict[Operator, Callable[[object, object], bool]] = {
    Operator.EQ: operator.eq,
    Operator.NE: operator.ne,
    Operator.LT: operator.lt,
    Operator.LE: operator.le,
    Operator.GT: operator.gt,
    Operator.GE: operator.ge,
}


def evaluate(filter_: Filter | None, fields: Mapping[str, FieldValue]) -> bool:
    """Whether an entity with these fields matches; a missing field is not in them."""
    return filter_ is None or _truth(filter_, fields) is True


def _truth(filter_: Filter, fields: Mapping[str, FieldValue]) -> bool | None:
    """Whether a filter holds; None where a missing value leaves it open, as in SQL."""
    match filter_:
        case And(operands):
            truths = [_truth(operand, fields) for operand in operands]
            return False if False in truths else None if None in truths else True
        case Or(operands):
            truths = [_truth(operand, fields) for operand in operands]
            return True if True in truths else None if None in truths else False
        case Not(operand):
            truth = _truth(operand, fields)
            return None if truth is None else not truth
        case IsNull(field):
            return field.name not in fields
    if filter_.field.name not in fields:
        return None
    return _holds(filter_, fields[filter_.field.name])


def _holds(leaf: Comparison | In | Like | Contains, value: FieldValue) -> bool:
    match leaf:
        case Comparison(_, sign, wanted):
            return _COMPARE[sign](value, wanted)
        case In(_, values):
            return value in values
        case Like(_, pattern):
            return re.fullmatch(_regex(pattern), str(value), re.DOTALL) is not None
        case Contains(_, values, all=every):
            assert isinstance(value, tuple)
            return (all if every else any)(wanted in value for wanted in values)


def _regex(pattern: str) -> str:
    found = re.findall(r"\\(.)|(%)|(_)|([^\\%_]+)", pattern, re.DOTALL)
    return "".join(
        ".*" if any_ else "." if one else re.escape(escaped or text)
        for escaped, any_, one, text in found
    )
