"""What items and users are known by beside their interactions, as a network reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milvine.models import texts as texts_of
from milvine.models.texts import Texts


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The declared fields of rows: of items, say."""

    offsets: NDArray[np.int64]
    """(rows + 1,): the tokens of row r are `offsets[r]` to `offsets[r + 1]`."""
    tokens: NDArray[np.int32]
    """(tokens,): values of categories and members of lists, numbered over all fields."""
    weights: NDArray[np.float32]
    """(tokens,): how much each counts; those of one list come to 1."""
    token_count: int
    """How many different tokens there are."""
    numbers: NDArray[np.float32]
    """(rows, n): numbers and times, scaled to about 1; 0 where there is none."""
    texts: Texts | None = None
    """What is said of the rows; None where no text is read."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """(rows,): of which rows anything is known."""
        known: NDArray[np.bool_] = np.diff(self.offsets) > 0
        return known if self.texts is None else known | self.texts.is_known

    def take(self, rows: NDArray[np.integer]) -> Features:
        """Some rows, in their order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Features(
            offsets,
            self.tokens[places],
            self.weights[places],
            self.token_count,
            self.numbers[rows],
            None if self.texts is None else self.texts.take(rows),
        )

    @classmethod
    def none(cls, rows: int, token_count: int = 0, number_count: int = 0) -> Features:
        """Rows of which nothing is known."""
        return cls(
            np.zeros(rows + 1, np.int64),
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
            token_count,
            np.zeros((rows, number_count), np.float32),
        )

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        """The rows of several, one after the other; all have the same fields."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            np.concatenate(([0], np.cumsum(lengths))),
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.weights for part in parts]),
            parts[0].token_count,
            np.concatenate([part.numbers for part in parts]),
            texts_of.joined([part.texts for part in parts], [len(part) for part in parts]),
        )
