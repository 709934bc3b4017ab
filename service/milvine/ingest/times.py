"""Casting whole columns to times, in the formats that files have them in."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from milvine.domain.entity import to_micros
from milvine.ingest.columns import (
    NUMBER,
    Casted,
    Mask,
    all_good,
    is_text,
    matches,
    none_good,
    nulls_kept,
    without_empty,
)
from milvine.ingest.source import TimeFormat

NO_TIME = "must be a time: ISO 8601 or a number since 1970, in the time format of the import"

_WHOLE = r"^-?([0-9]{1,18}|[1-8][0-9]{18})$"  # the int64s, but for the last few
_MICROS = {
    TimeFormat.SECONDS: 1_000_000,
    TimeFormat.MILLISECONDS: 1_000,
    TimeFormat.MICROSECONDS: 1,
}
_LIMITS = {
    TimeFormat.SECONDS: 1e11,
    TimeFormat.MILLISECONDS: 1e14,
    TimeFormat.MICROSECONDS: 1e17,
    TimeFormat.NANOSECONDS: np.inf,
}
"""The unit of a number is the first whose limit it is under: 1e11 seconds are the year 5138, and
1e11 milliseconds are 1973."""
_FARTHEST = 9 * 10**18
"""Microseconds out of the range of any rule, and still an int64."""


def to_time(array: pa.Array, time_format: TimeFormat) -> Casted:
    """Times as int64 microseconds since 1970; those without a zone are taken as UTC."""
    if is_text(array.type):
        return _parse(without_empty(array), time_format)
    if pt.is_null(array.type):
        return all_good(array.cast(pa.int64()))
    if pt.is_date(array.type):
        array = array.cast(pa.timestamp("ms"))
    if pt.is_timestamp(array.type):
        return _scale(array.cast(pa.int64()), TimeFormat(array.type.unit))
    if (pt.is_integer(array.type) or pt.is_floating(array.type)) and time_format != TimeFormat.ISO:
        return _scale(array, time_format)
    return none_good(array, pa.int64())


def _parse(texts: pa.Array, time_format: TimeFormat) -> Casted:
    # Most files hold one kind of time, which Arrow parses as a whole.
    if time_format is not TimeFormat.ISO:
        try:
            return _scale(texts.cast(pa.int64()), time_format)
        except pa.ArrowInvalid:
            pass
    if time_format in (TimeFormat.AUTO, TimeFormat.ISO):
        for zone in (None, "UTC"):
            try:
                return all_good(texts.cast(pa.timestamp("us", zone)).cast(pa.int64()))
            except pa.ArrowInvalid:
                continue
    return _parse_mixed(pc.utf8_trim_whitespace(texts), time_format)


def _parse_mixed(texts: pa.Array, time_format: TimeFormat) -> Casted:
    """Each text by its own format: the slow way, for columns with faults or several formats."""
    is_whole, is_number, is_moment = _kinds(texts, time_format)
    micros = np.zeros(len(texts), np.int64)
    for mask, kind in ((is_whole, pa.int64()), (is_number, pa.float64())):
        if mask.any():
            numbers = pc.utf8_ltrim(texts.filter(pa.array(mask)), "+").cast(kind)
            micros[mask] = _scale(numbers, time_format).array.to_numpy()
    bad = ~(is_whole | is_number | is_moment)
    for row in np.flatnonzero(is_moment).tolist():
        moment = _moment(texts[row].as_py())
        bad[row] = moment is None
        micros[row] = moment or 0
    return nulls_kept(pa.array(micros), texts, bad=bad)


def _kinds(texts: pa.Array, time_format: TimeFormat) -> tuple[Mask, Mask, Mask]:
    """Which texts are whole numbers, other numbers, and maybe moments: (rows,) bool each."""
    none = np.zeros(len(texts), np.bool_)
    if time_format is TimeFormat.ISO:
        return none, none, np.ones(len(texts), np.bool_)
    is_whole = matches(texts, _WHOLE)
    is_number = matches(texts, NUMBER) & ~is_whole
    is_moment = ~(is_whole | is_number) if time_format is TimeFormat.AUTO else none
    return is_whole, is_number, is_moment


def _moment(text: str | None) -> int | None:
    """Microseconds since 1970 of an ISO 8601 text; None where it is none."""
    try:
        moment = datetime.fromisoformat(text or "")
        return to_micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def _scale(array: pa.Array, time_format: TimeFormat) -> Casted:
    """Numbers since 1970 as microseconds."""
    if pt.is_uint64(array.type) or pt.is_float16(array.type):
        array = array.cast(pa.float64())
    numbers = array.fill_null(0).to_numpy(zero_copy_only=False)  # (rows,) an integer or a float
    is_finite = np.isfinite(numbers)
    limits = _LIMITS if time_format is TimeFormat.AUTO else {time_format: np.inf}
    size = np.abs(numbers.astype(np.float64))
    micros = np.select(
        [size < limit for limit in limits.values()],
        [_to_micros(numbers, unit) for unit in limits],
    )
    return nulls_kept(pa.array(micros), array, bad=~is_finite)


def _to_micros(numbers: npt.NDArray[np.generic], unit: TimeFormat) -> npt.NDArray[np.int64]:
    """Microseconds, clipped to what an int64 holds: clipped ones are in no valid year."""
    if numbers.dtype.kind == "f":
        factor = _MICROS.get(unit, 1e-3)
        floats = np.nan_to_num(numbers.astype(np.float64)) * factor
        return np.rint(np.clip(floats, -_FARTHEST, _FARTHEST)).astype(np.int64)
    whole = numbers.astype(np.int64)
    if unit is TimeFormat.NANOSECONDS:
        return whole // 1_000
    farthest = _FARTHEST // _MICROS[unit]
    return np.clip(whole, -farthest, farthest) * _MICROS[unit]
