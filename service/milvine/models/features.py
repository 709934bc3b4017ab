"""What items are known by beside their interactions, as a network reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The declared fields and text vectors of rows: of items, say."""

    offsets: NDArray[np.int64]
    """(rows + 1,): the tokens of row r are `offsets[r]` to `offsets[r + 1]`."""
    tokens: NDArray[np.int32]
    """(tokens,): values of categories and members of lists, numbered over all fields."""
    token_count: int
    """How many different tokens there are."""
    numbers: NDArray[np.float32]
    """(rows, n): numbers, times and text vectors, scaled to about 1; 0 where there is none."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def none(cls, rows: int) -> Features:
        """Rows of which nothing is known."""
        return cls(
            np.zeros(rows + 1, np.int64), np.zeros(0, np.int32), 0, np.zeros((rows, 0), np.float32)
        )
