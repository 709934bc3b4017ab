"""Where the training of feature towers starts: a ridge regression of vectors on fields.

The vectors that factorisations start from are there before any training, so what fields say of them
is a least-squares problem, solved by conjugate gradients (Hestenes and Stiefel 1952) for all
dimensions at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from milvine.models.feature_tower import FeatureTower, Rows

_STEPS = 30
_RIDGE = 3.0
"""So many rows without any vector are added to each token and number."""
_TINY = 1e-30


def begin(tower: FeatureTower, rows: Rows, values: Tensor, counts: Tensor) -> None:
    """Set a tower to the best that it can say of rows.

    Args:
        tower: What is set.
        rows: The fields of rows.
        values: The vectors that it is to say, (rows, d).
        counts: How much each row counts, (rows,).
    """
    if not len(rows.tokens) and not rows.numbers.shape[1]:
        return
    problem = _Problem(rows, counts / counts.mean(), len(tower.tokens))
    with torch.no_grad():
        found = problem.solution(values)
        tower.tokens.copy_(found[: problem.token_count])
        if tower.numbers is not None:
            tower.numbers.weight.copy_(found[problem.token_count :].mT)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    rows: Rows
    counts: Tensor
    """(rows,)"""
    token_count: int

    def solution(self, values: Tensor) -> Tensor:
        """The weights (tokens and numbers, d) of the regression."""
        residual = self._transposed(values)
        found, step = torch.zeros_like(residual), residual
        square = residual.square().sum(dim=0)
        for _ in range(_STEPS):
            image = self._transposed(self._said(step)) + _RIDGE * step
            length = square / (step * image).sum(dim=0).clamp(min=_TINY)
            found = found + length * step
            residual = residual - length * image
            last, square = square, residual.square().sum(dim=0)
            step = residual + square / last.clamp(min=_TINY) * step
        return found

    def _said(self, weights: Tensor) -> Tensor:
        """(rows, d): what weights say of rows."""
        rows, tokens = self.rows, weights[: self.token_count]
        said = F.embedding_bag(
            rows.tokens, tokens, rows.starts, mode="sum", per_sample_weights=rows.weights
        )
        return said + rows.numbers @ weights[self.token_count :]

    def _transposed(self, values: Tensor) -> Tensor:
        """(tokens and numbers, d): values of rows, gathered by what these have."""
        counted = values * self.counts[:, None]
        rows = self.rows
        whose = torch.repeat_interleave(rows.offsets.diff())
        tokens = values.new_zeros(self.token_count, values.shape[1])
        tokens.index_add_(0, rows.tokens, counted[whose] * rows.weights[:, None])
        return torch.cat((tokens, rows.numbers.mT @ counted))
