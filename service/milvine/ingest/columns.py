"""Casting whole columns: what can't be cast is null and told, and fails nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from milvine.ingest.files import Column

Mask = npt.NDArray[np.bool_]

NO_TEXT = "must be text or a whole number"
NO_NUMBER = "must be a number"

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True, slots=True, eq=False)
class Casted:
    """A column of the type that was asked for."""

    array: pa.Array
    bad: Mask
    """(rows,) bool: what could not be cast, and is null."""


def to_arrow(column: Column) -> pa.Array:
    """The column as Arrow: JSON values of several types become their texts."""
    if isinstance(column, pa.Array):
        array = column
    else:
        try:
            array = pa.array(column)
        except (pa.ArrowException, OverflowError):
            array = pa.array([_scalar_text(value) for value in column], pa.string())
    return array.dictionary_decode() if pt.is_dictionary(array.type) else array


def to_text(array: pa.Array) -> Casted:
    """Ids and names as strings; whole numbers become their digits."""
    if is_text(array.type) or pt.is_integer(array.type) or pt.is_null(array.type):
        return all_good(array.cast(pa.string()))
    if pt.is_floating(array.type):
        # Pandas makes floats of whole numbers where some are missing.
        numbers = array.to_numpy(zero_copy_only=False).astype(np.float64)
        is_whole = np.isfinite(numbers) & (np.abs(numbers) < 2**53) & (numbers % 1 == 0)
        whole = np.where(is_whole, numbers, 0).astype(np.int64)
        return nulls_kept(pa.array(whole).cast(pa.string()), array, bad=~is_whole)
    return none_good(array, pa.string())


def to_double(array: pa.Array) -> Casted:
    """Numbers as float64."""
    if is_text(array.type):
        return _parse_doubles(without_empty(array))
    kinds = (pt.is_integer, pt.is_floating, pt.is_null, pt.is_decimal)
    if any(is_kind(array.type) for is_kind in kinds):
        return all_good(array.cast(pa.float64(), safe=False))
    return none_good(array, pa.float64())


def is_text(kind: pa.DataType) -> bool:
    """Whether the values of the type are texts."""
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def without_empty(texts: pa.Array) -> pa.Array:
    """The texts as strings, with nulls for empty ones."""
    texts = texts.cast(pa.string())
    is_empty = pc.equal(texts, "")
    if not is_empty.true_count:
        return texts
    return pc.if_else(is_empty, pa.scalar(None, pa.string()), texts)


def matches(texts: pa.Array, pattern: str) -> Mask:
    """Which texts match the pattern: (rows,) bool, false for null."""
    found = pc.match_substring_regex(texts, pattern).fill_null(fill_value=False)
    mask: Mask = found.to_numpy(zero_copy_only=False)
    return mask


def all_good(array: pa.Array) -> Casted:
    """A column without faults."""
    return Casted(array, np.zeros(len(array), np.bool_))


def none_good(array: pa.Array, kind: pa.DataType) -> Casted:
    """A column of a type that can't be cast: all its values are faults."""
    return nulls_kept(pa.nulls(len(array), kind), array, bad=np.ones(len(array), np.bool_))


def nulls_kept(casted: pa.Array, array: pa.Array, *, bad: Mask) -> Casted:
    """The casted column with nulls where `array` has them, which are no faults, and where bad."""
    is_null = array.is_null().to_numpy(zero_copy_only=False)
    missing = pa.array(bad | is_null)
    return Casted(
        pc.if_else(missing, pa.scalar(None, casted.type), casted).cast(casted.type), bad & ~is_null
    )


def _scalar_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _parse_doubles(texts: pa.Array) -> Casted:
    try:
        return all_good(texts.cast(pa.float64()))
    except pa.ArrowInvalid:
        texts = pc.utf8_trim_whitespace(texts)
        # Arrow reads NaN and infinities; the rules of interactions refuse them.
        is_number = matches(texts, NUMBER) | matches(texts, r"^(?i)[+-]?(nan|inf|infinity)$")
        numbers = pc.if_else(pa.array(is_number), pc.utf8_ltrim(texts, "+"), "0")
        return nulls_kept(numbers.cast(pa.float64()), texts, bad=~is_number)
