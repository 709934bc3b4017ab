"""Values of an item field by row: as numbers for decays, and told apart for caps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from milvine.domain.entity import FieldValue, to_micros
from milvine.retrieval.ranking import Labels, Rows

_LONGEST_KEY = 64
"""Longer texts are told apart by a digest."""
_BYTES_OF_KEY = 200
"""What a distinct value takes, about."""
_SPARE_KEYS = 1_024
"""So many values that no row has any more stay, and as many as there are values."""


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """Numbers by row; times are microseconds since 1970, which are whole until the year 2255."""

    values: NDArray[np.float64]
    """(items,), NaN for none"""

    @classmethod
    def empty(cls, count: int) -> Self:
        """No values."""
        return cls(np.full(count, np.nan))

    @property
    def nbytes(self) -> int:
        """The bytes it takes."""
        return self.values.nbytes

    def take(self, rows: Rows) -> NDArray[np.float64]:
        """The values of rows, (n,)."""
        return self.values[rows]

    def grown(self, count: int) -> Self:
        """The column with so many rows, the new ones without a value."""
        return type(self)(np.append(self.values, np.full(count - len(self), np.nan)))

    def __len__(self) -> int:
        return len(self.values)

    def updated(self, rows: Rows, found: Iterable[FieldValue | None]) -> Self:
        """The column with other values at some rows."""
        values = self.values.copy()
        values[rows] = [_number(value) for value in found]
        return type(self)(values)


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """Values by row, none, one or several each, as numbers from 0: the Labels of a cap."""

    starts: NDArray[np.int64]
    """(items,): where the codes of each row begin"""
    lengths: NDArray[np.int64]
    """(items,): how many distinct ones it has"""
    codes: NDArray[np.int32]
    known: dict[object, int] = field(default_factory=dict)
    """The code of each value. Versions of a column may share it: it only grows, by one writer."""

    @classmethod
    def empty(cls, count: int) -> Self:
        """No values."""
        return cls(np.zeros(count, np.int64), np.zeros(count, np.int64), np.empty(0, np.int32))

    def grown(self, count: int) -> Self:
        """The column with so many rows, the new ones without a value."""
        added = np.zeros(count - len(self), np.int64)
        starts, lengths = np.append(self.starts, added), np.append(self.lengths, added)
        return type(self)(starts, lengths, self.codes, self.known)

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def count(self) -> int:
        """How many distinct values there are."""
        return len(self.known)

    @property
    def nbytes(self) -> int:
        """The bytes it takes, about."""
        arrays = self.starts.nbytes + self.lengths.nbytes + self.codes.nbytes
        return arrays + len(self.known) * _BYTES_OF_KEY

    def take(self, rows: Rows) -> NDArray[np.int32]:
        """The values of rows, (n, most values of one); -1 where there is none."""
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max(initial=1))
        is_there = columns < lengths[:, None]
        taken = np.full(is_there.shape, -1, np.int32)
        taken[is_there] = self.codes[(self.starts[rows, None] + columns)[is_there]]
        return taken

    def renumbered(self) -> Self:
        """The column without the values that no row has any more."""
        used, codes = np.unique(self.codes, return_inverse=True)
        keys = list(self.known)  # in the order of their codes
        known = {keys[old]: new for new, old in enumerate(used.tolist())}
        return type(self)(self.starts, self.lengths, codes.astype(np.int32), known)

    def updated(self, rows: Rows, found: Iterable[FieldValue | None]) -> Self:
        """The column with other values at some rows."""
        lists = [self._encode(value) for value in found]
        sizes = np.array([len(codes) for codes in lists], np.int64)
        starts, lengths = self.starts.copy(), self.lengths.copy()
        starts[rows] = len(self.codes) + np.cumsum(sizes) - sizes
        lengths[rows] = sizes
        added = [code for codes in lists for code in codes]
        codes = np.append(self.codes, np.array(added, np.int32))
        packed = self._packed(starts, lengths, codes)
        is_littered = len(self.known) > 2 * len(packed.codes) + _SPARE_KEYS
        return packed.renumbered() if is_littered else packed

    def _packed(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64], codes: NDArray[np.int32]
    ) -> Self:
        """The column without the codes that no row has any more."""
        packed = np.cumsum(lengths) - lengths
        places = np.repeat(starts - packed, lengths) + np.arange(lengths.sum())
        return type(self)(packed, lengths, codes[places], self.known)

    def _encode(self, value: FieldValue | None) -> list[int]:
        if value is None:
            return []
        values = dict.fromkeys(value) if isinstance(value, tuple) else (value,)
        return [self.known.setdefault(_key(one), len(self.known)) for one in values]


Column: TypeAlias = Numbers | Listed


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """Values of some rows, by the names of the fields."""

    numbers: Mapping[str, NDArray[np.float64]]
    """(n,) in the order of the rows, NaN for none; times in microseconds since 1970"""
    labels: Mapping[str, Labels]
    """Of any rows."""


def _number(value: FieldValue | None) -> float:
    match value:
        case datetime():
            return float(to_micros(value))
        case int() | float():
            return float(value)
        case _:
            return np.nan


def _key(value: object) -> object:
    """What tells a value from others of its field, and is not long."""
    if isinstance(value, str) and len(value) > _LONGEST_KEY:
        return blake2b(value.encode(), digest_size=16).digest()
    return value
