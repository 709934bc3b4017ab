"""Where the training of factorisations starts: the spectrum of who has what.

The matrix R of users and items is scaled by how often each occurs, and the leading singular
vectors V of

    (D_u + s)^-1/2 R (D_i + s)^-1/2

span the items (Peng, Sugiyama and Mine 2022, "SVD-GCN", section 4, who show that graph
convolutions converge to this, and why s shrinks rare rows). The filter F of ridge regression gives
a direction `v / (v + r)`, where v is its squared singular value as a share of the largest. Then
sources `(D_i + s)^-1/2 V F^1/2` and targets `(D_i + s)^0.35 V F^1/2` score a pool of items well
before any training, which needs a few passes instead of hundreds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from milvine.domain.errors import Cancelled
from milvine.models.base import Histories, Run
from milvine.models.graph import Graph

_SPARE = 16
"""Columns beyond those asked for, which make the last of them exact."""
_ITERATIONS = 3
_PANEL = 64
"""Columns that go through the graph at once, between two looks at whether to stop."""
_NOISE = 0.02
"""The random part of the start, which tells one seed from another and fills what R leaves empty."""


_POPULARITY = 0.35
"""The power of its frequency by which an item is raised at the start."""
_RIDGE = 0.01
"""r of the filter: what varies less than a tenth of the first direction is mostly noise."""
_LENGTH = 1.6
"""The length of vectors at the start, on average; scores then spread as softmax wants."""


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Item vectors before training."""

    vectors: Tensor
    """(items, d) float32: the singular vectors, filtered."""
    sources: Tensor
    """(items, d) float32: what an item adds to its users."""
    targets: Tensor
    """(items, d) float32: what users are compared with."""


def start(
    histories: Histories, item_count: int, dimension: int, *, shrinkage: float, seed: int, run: Run
) -> Start:
    """The spectral start of a factorisation; its noise comes from the seed."""
    rng = torch.Generator().manual_seed(seed)
    graph = Graph.of(histories, item_count, shrinkage=shrinkage, device=run.device)
    vectors, energies = _leading(graph, item_count, dimension, rng, run)
    shares = energies / energies[0]
    filtered = vectors * (shares / (shares + _RIDGE)).sqrt()
    frequency = (graph.item_counts + shrinkage).clamp(min=1.0)[:, None]
    return Start(
        _with_noise(filtered, rng),
        _with_noise(filtered * frequency**-0.5, rng),
        _with_noise(filtered * frequency**_POPULARITY, rng),
    )


def _leading(
    graph: Graph, item_count: int, dimension: int, rng: torch.Generator, run: Run
) -> tuple[Tensor, Tensor]:
    """The right singular vectors (items, d) of a graph and the squared singular values (d,).

    Both are 0 past the rank of the graph.

    Subspace iteration: Halko, Martinsson and Tropp 2011, "Finding structure with randomness",
    algorithm 4.4.
    """
    width = min(dimension + _SPARE, item_count)
    basis = torch.randn(item_count, width, generator=rng).to(run.device)
    for _ in range(_ITERATIONS):
        basis = _stepped(graph, basis, run)
    image = graph.users_of(basis).double()
    energies, axes = torch.linalg.eigh(image.mT @ image)
    energies = energies * (energies > energies[-1] * 1e-7)
    turned = (basis @ (axes * (energies > 0)).float()).flip(1)[:, :dimension]
    missing = (0, dimension - turned.shape[1])
    return F.pad(turned, missing), F.pad(energies.float().flip(0)[:dimension], missing)


def _stepped(graph: Graph, basis: Tensor, run: Run) -> Tensor:
    """An orthonormal basis of A' A times a basis, panel by panel; raises Cancelled between."""
    stepped = torch.empty_like(basis)
    for first in range(0, basis.shape[1], _PANEL):
        if run.cancelled():
            raise Cancelled
        done = stepped[:, :first]
        panel = graph.co_occurrence(basis[:, first : first + _PANEL].contiguous())
        for _ in range(2):  # the second time removes what rounding left
            panel = torch.linalg.qr(panel - done @ (done.mT @ panel))[0]
        stepped[:, first : first + _PANEL] = panel
    return stepped


def _with_noise(vectors: Tensor, rng: torch.Generator) -> Tensor:
    length = math.sqrt(vectors.square().sum(dtype=torch.float64) / max(len(vectors), 1)) or 1.0
    noise = torch.randn(vectors.shape, generator=rng).to(vectors.device)
    noise *= _NOISE / math.sqrt(vectors.shape[1])
    return (vectors / length + noise) * _LENGTH
