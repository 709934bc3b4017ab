"""Casting single values to the types of declared fields."""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson

from milvine.domain.catalog import FieldType
from milvine.domain.entity import INT64_MAX, INT64_MIN, FieldValue

_WHOLE = re.compile(r"[+-]?[0-9]{1,19}(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


class Refused(Exception):
    """The value is not of the type; the text is the rule."""


def cast_value(value: object, kind: FieldType, separator: str) -> FieldValue | None:
    """The value as the type has it; None where it is missing.

    Args:
        value: from JSON, Arrow or the text of a cell; never a time.
        kind: any type but TIMESTAMP, whose columns are cast as a whole.
        separator: what stands between the elements of a list in a text.

    Raises:
        Refused: it is not of the type.
    """
    if value is None or (value == "" and kind is not FieldType.STRING):
        return None
    if kind is FieldType.STRING_LIST:
        return tuple(_text(item) for item in _elements(value, separator))
    if kind is FieldType.INT64_LIST:
        return tuple(_whole(item) for item in _elements(value, separator))
    return _SCALARS[kind](value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Refused("must be text")


def _whole(value: object) -> int:
    whole: int | None = None
    match value:
        case bool():
            pass
        case int():
            whole = value
        case float() if value.is_integer():
            whole = int(value)
        case str() if _WHOLE.fullmatch(text := value.strip()):
            whole = int(text.partition(".")[0])
    if whole is None or not INT64_MIN <= whole <= INT64_MAX:
        raise Refused("must be a whole number of 64 bits")
    return whole


def _number(value: object) -> float:
    match value:
        case bool():
            pass
        case int() | float():
            return float(value)
        case str() if _NUMBER.fullmatch(text := value.strip()):
            return float(text)
    raise Refused("must be a number")


def _truth(value: object) -> bool:
    truth = _TRUTHS.get(str(value).strip().lower())
    if truth is None:
        raise Refused("must be true, false, 1 or 0")
    return truth


def _elements(value: object, separator: str) -> list[object]:
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        raise Refused("must be a list")
    if not value.startswith("["):
        return [part for item in value.split(separator) if (part := item.strip())]
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise Refused("must be a JSON array, as it begins with [") from exc
    if not isinstance(parsed, list):
        raise Refused("must be a JSON array, as it begins with [")
    return parsed


_SCALARS: dict[FieldType, Callable[[object], FieldValue]] = {
    FieldType.STRING: _text,
    FieldType.INT64: _whole,
    FieldType.DOUBLE: _number,
    FieldType.BOOL: _truth,
}
