"""Pieces of networks whose randomness comes from a generator that is handed to them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from milvine.models.base import Tensors
from milvine.models.batches import Batch

_PREFIX = "network."


def drawn_normal(shape: tuple[int, ...], scale: float, rng: torch.Generator) -> nn.Parameter:
    """A parameter of normal numbers with that standard deviation."""
    return nn.Parameter(torch.randn(shape, generator=rng) * scale)


def dense(inputs: int, outputs: int, rng: torch.Generator) -> nn.Linear:
    """A linear layer by Glorot and Bengio 2010, equation 16, with biases of 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, generator=rng)
    nn.init.zeros_(layer.bias)
    return layer


def dropped(x: Tensor, *, share: float, batch: Batch, rng: torch.Generator) -> Tensor:
    """Numbers of the users of a batch (users, …) without a share of them, the rest scaled up."""
    if not share:
        return x
    each = x.shape[1:]
    drawn = batch.of_users(lambda n: torch.rand((n, *each), generator=rng, device=x.device))
    return x * (drawn >= share) / (1 - share)


def stored(network: nn.Module) -> Tensors:
    """The weights of a network, as an artifact keeps them."""
    return {_PREFIX + k: v.detach().cpu().numpy() for k, v in network.state_dict().items()}


def load(network: nn.Module, tensors: Tensors) -> None:
    """Give a network its weights out of an artifact, for reading alone."""
    weights = {
        name.removeprefix(_PREFIX): torch.from_numpy(np.require(array, np.float32, "W"))
        for name, array in tensors.items()
        if name.startswith(_PREFIX)
    }
    network.load_state_dict(weights, assign=True)
    network.eval().requires_grad_(requires_grad=False)


def identity(size: int) -> nn.Linear:
    """A linear layer that gives what it takes, to begin with."""
    layer = nn.Linear(size, size)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
