"""Who has what, as a sparse matrix scaled by how often each occurs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from milvine.models.base import Histories
from milvine.models.least_squares import quiet_sparse, transposed


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The matrix A = (D_u + s)^-1/2 R (D_i + s)^-1/2 of users and items, and its transpose."""

    by_user: Tensor
    """(users, items), compressed rows."""
    by_item: Tensor
    """(items, users), compressed rows."""
    item_counts: Tensor
    """(items,) float32: how many users have each item."""

    @classmethod
    def of(cls, histories: Histories, item_count: int, *, shrinkage: float, device: str) -> Graph:
        """The graph of histories in which each pair stands once."""
        quiet_sparse()
        counts = np.bincount(histories.items, minlength=item_count)
        by_item, _ = transposed(histories, item_count)
        user_scale = _scale(histories.lengths, shrinkage)
        item_scale = _scale(counts, shrinkage)
        return cls(
            _matrix(histories, item_count, (user_scale, item_scale), device),
            _matrix(by_item, len(histories), (item_scale, user_scale), device),
            torch.from_numpy(counts).float().to(device),
        )

    def users_of(self, items: Tensor) -> Tensor:
        """A X: (users, d) of X (items, d)."""
        return self.by_user @ items

    def co_occurrence(self, items: Tensor) -> Tensor:
        """A' A X: (items, d) of X (items, d)."""
        # Sparse products stay in float32 also where others are made in less.
        with torch.autocast(items.device.type, enabled=False):
            return self.by_item @ (self.by_user @ items)

    def propagate(self, items: Tensor) -> Tensor:
        """`co_occurrence`, through which gradients flow: its matrix is symmetric."""
        propagated: Tensor = _Propagation.apply(items, self)  # type: ignore[no-untyped-call]
        return propagated


class _Propagation(torch.autograd.Function):  # torch has no types for what `ctx` keeps
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, items: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph  # type: ignore[attr-defined]
        return graph.co_occurrence(items)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        graph: Graph = ctx.graph  # type: ignore[attr-defined]
        return graph.co_occurrence(gradient), None


def _scale(counts: NDArray[np.int64], shrinkage: float) -> NDArray[np.float64]:
    scales: NDArray[np.float64] = np.maximum(counts + shrinkage, 1.0) ** -0.5
    return scales


def _matrix(
    rows: Histories,
    columns: int,
    scales: tuple[NDArray[np.float64], NDArray[np.float64]],
    device: str,
) -> Tensor:
    own, other = scales
    values = own[rows.users] * other[rows.items]
    return torch.sparse_csr_tensor(
        torch.from_numpy(rows.offsets.astype(np.int32)),
        torch.from_numpy(rows.items),
        torch.from_numpy(values.astype(np.float32)),
        (len(rows), columns),
        check_invariants=False,
    ).to(device)
