"""Alternating least squares by block conjugate gradient, on the processor or an accelerator.

One side is fixed, and every row of the other solves its own regularised least squares. All rows of
a block take their conjugate-gradient steps together (Takács, Pilászy and Tikk 2011 solve them row
by row), so that a step is two sparse products: inner products at the observed pairs, and their sum
of fixed vectors. Few steps are enough because each sweep starts from the last one's solution.

On the processor each core takes blocks of its own, small enough for its cache: no core waits for
another after each of the many short operations, which costs most on a machine with other work.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from milvine.domain.errors import Cancelled
from milvine.models.base import Histories, IsCancelled

_STEPS = 3
_INITIAL_SCALE = 0.1
_TINY = 1e-30
"""Rows that are solved already take steps of 0."""
_BLOCK_NUMBERS = 2**22
"""How many numbers of fixed vectors a block touches: some 10 ms of work between cancel checks."""
_DEVICE_BLOCK_NUMBERS = 2**25
"""The same on an accelerator, which wants more at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Successive rows of the matrix of observed pairs, in compressed rows."""

    rows: slice
    events: slice
    offsets: Tensor
    columns: Tensor
    shape: tuple[int, int]

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """(events,): the inner product of both vectors of each pair."""
        sampled = torch.sparse_csr_tensor(
            self.offsets,
            self.columns,
            left.new_zeros(len(self.columns)),
            self.shape,
            check_invariants=False,
        )
        torch.sparse.sampled_addmm(sampled, left, right.mT, beta=0.0, out=sampled)
        return sampled.values()

    def sums(self, values: Tensor, right: Tensor) -> Tensor:
        """(rows, d): the sum of the vectors of each row's pairs, times their values (events,)."""
        return F.embedding_bag(
            self.columns, right, self.offsets[:-1], mode="sum", per_sample_weights=values
        )


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The regressions of all rows of one side."""

    blocks: tuple[Block, ...]
    weights: Tensor
    """(events,): over 0."""
    penalty: Tensor
    """(rows, d): the diagonal L2 penalty of each row."""


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """What a sweep over one side gives."""

    vectors: Tensor
    loss: float
    """The weighted squared errors plus what the penalties of the vectors come to."""


def blocks(
    histories: Histories, column_count: int, dimension: int, device: str
) -> tuple[Block, ...]:
    """The rows of histories in blocks of bounded work."""
    quiet_sparse()
    return tuple(_blocks(histories, column_count, dimension, device))


def _blocks(
    histories: Histories, column_count: int, dimension: int, device: str
) -> Iterator[Block]:
    offsets = histories.offsets
    columns = torch.from_numpy(histories.items).to(device)
    numbers = _BLOCK_NUMBERS if torch.device(device).type == "cpu" else _DEVICE_BLOCK_NUMBERS
    budget = numbers // dimension
    start = 0
    while start < len(histories):
        reach = int(np.searchsorted(offsets, offsets[start] + budget, side="right")) - 1
        stop = min(max(reach, start + 1), len(histories))
        events = slice(int(offsets[start]), int(offsets[stop]))
        own = (offsets[start : stop + 1] - offsets[start]).astype(np.int32)
        yield Block(
            slice(start, stop),
            events,
            torch.from_numpy(own).to(device),
            columns[events],
            (stop - start, column_count),
        )
        start = stop


def improve(
    side: Side,
    vectors: Tensor,
    fixed: Tensor,
    *,
    targets: Tensor,
    gram: Tensor | None = None,
    cancelled: IsCancelled,
) -> Sweep:
    """Take the vectors of one side nearer to their least squares against the fixed side.

    Each row x minimises `sum over its pairs of weight (target - <x, y>)^2 + x' (gram + penalty) x`.

    Raises:
        Cancelled: When `cancelled` says so, asked before each block.
    """
    improved = torch.empty_like(vectors)

    def solve(block: Block) -> Tensor:
        if cancelled():
            raise Cancelled
        system = _System(
            block,
            fixed,
            side.weights[block.events],
            targets[block.events],
            side.penalty[block.rows],
            gram,
        )
        improved[block.rows], loss = _conjugate_gradient(system, vectors[block.rows])
        return loss

    losses = _on_all_cores(solve, side.blocks, fixed.device)
    return Sweep(improved, float(torch.stack(losses).sum()))


def _on_all_cores(
    solve: Callable[[Block], Tensor], blocks: Sequence[Block], device: torch.device
) -> list[Tensor]:
    """What each block gives, in their order, whichever core it was on."""
    if device.type != "cpu":
        return [solve(block) for block in blocks]
    with _one_core_a_thread() as cores, ThreadPoolExecutor(cores) as pool:
        return list(pool.map(solve, blocks))


@contextmanager
def _one_core_a_thread() -> Iterator[int]:
    """Have torch use one core in each thread that begins here; gives how many cores there are."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield cores
    finally:
        torch.set_num_threads(cores)


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """The normal equations of a block's rows."""

    block: Block
    fixed: Tensor
    weights: Tensor
    targets: Tensor
    penalty: Tensor
    gram: Tensor | None

    def residual(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the rows are short of their solution, and their loss."""
        errors = self.targets - self.block.products(x, self.fixed)
        weighted = errors * self.weights
        shrinkage = self._shrinkage(x)
        loss = (errors * weighted).sum(dtype=torch.float64)
        loss += (x * shrinkage).sum(dtype=torch.float64)
        return self.block.sums(weighted, self.fixed).sub_(shrinkage), loss

    def __matmul__(self, x: Tensor) -> Tensor:
        weighted = self.block.products(x, self.fixed).mul_(self.weights)
        return self.block.sums(weighted, self.fixed).add_(self._shrinkage(x))

    def _shrinkage(self, x: Tensor) -> Tensor:
        penalised = self.penalty * x
        return penalised if self.gram is None else penalised.addmm_(x, self.gram)


def _conjugate_gradient(system: _System, start: Tensor) -> tuple[Tensor, Tensor]:
    """Take some steps of all rows at once; gives the solution and its loss, a scalar in float64."""
    x = start.clone()
    residual, loss = system.residual(x)
    direction = residual.clone()
    norm = _dots(residual, residual)
    for _ in range(_STEPS):
        image = system @ direction
        step = norm / _dots(direction, image).clamp_min(_TINY)
        x.addcmul_(direction, step)
        residual.addcmul_(image, step, value=-1)
        # A step along a direction that is conjugate to the others lowers the loss by so much.
        loss -= (step * norm).sum(dtype=torch.float64)
        smaller = _dots(residual, residual)
        direction.mul_(smaller / norm.clamp_min(_TINY)).add_(residual)
        norm = smaller
    return x, loss


def _dots(left: Tensor, right: Tensor) -> Tensor:
    return torch.einsum("rd,rd->r", left, right)[:, None]


def transposed(histories: Histories, item_count: int) -> Histories:
    """The same pairs with a row for each item."""
    order = np.argsort(histories.items, kind="stable")
    offsets = np.zeros(item_count + 1, np.int64)
    np.cumsum(np.bincount(histories.items, minlength=item_count), out=offsets[1:])
    users = histories.users[order].astype(np.int32)
    return Histories(offsets, users, histories.strengths[order], histories.times[order])


def initial(rows: Histories, dimension: int, seed: int) -> Tensor:
    """Small random vectors (rows, dimension); 0 for rows without pairs, which they keep."""
    vectors = torch.randn(len(rows), dimension, generator=torch.Generator().manual_seed(seed))
    vectors *= _INITIAL_SCALE / dimension**0.5
    return vectors.masked_fill_(torch.from_numpy(rows.lengths == 0)[:, None], 0.0)


def quiet_sparse() -> None:
    """Have torch say once, unheard, that its compressed rows are in beta."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*CSR tensor support is in beta.*")
        nothing = (
            torch.zeros(2, dtype=torch.int32),
            torch.zeros(0, dtype=torch.int32),
            torch.zeros(0),
        )
        torch.sparse_csr_tensor(*nothing, (1, 1), check_invariants=False)
