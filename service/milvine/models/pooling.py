"""Users as pools of their items: the vector of a user is a function of the history.

    u = (n + s)^-1/2 * sum over the history of p_i,        score(u, j) = <u, q_j>

where n is the length of the history. Paterek 2007 ("Improving regularized singular value
decomposition", section 3.6) and Kabbur, Ning and Karypis 2013 ("FISM", section 4) factorise so:
no user has parameters of their own, so a new user, or one more item, needs no training, and a
model keeps nothing of anyone. What training makes of a history, the encoder makes of it later.

While training, an item of the history is scored without itself, as it will be when it is new: FISM
leaves it out of the pool. Items outside the history are scored by the whole pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
from torch import Tensor

from milvine.models.base import Histories, Tensors
from milvine.models.batches import Batch, Drawn, batch_of

SOURCES = "source_vectors"
"""The name of the tensor (items, d) of what items add to the users that have them."""


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """What a batch of users makes of its histories."""

    users: Tensor
    """(users, d)"""
    without: Tensor
    """(events, d): the user of each event, had the event not been."""

    @classmethod
    def of(cls, batch: Batch, sources: Tensor, shrinkage: float) -> Pooled:
        """Pool the vectors of items (items, d)."""
        own = F.embedding(batch.items, sources)
        sums = own.new_zeros(len(batch), own.shape[1]).index_add(0, batch.rows, own)
        n = batch.lengths
        rest = (sums[batch.rows] - own) * _scale(n - 1, shrinkage)[batch.rows, None]
        return cls(sums * _scale(n, shrinkage)[:, None], rest)

    def beside(self, batch: Batch, count: int) -> Tensor:
        """(events, 1 + count, d): the user of each event for its item, and for others beside it."""
        others = self.users[batch.rows][:, None].expand(-1, count, -1)
        return torch.cat((self.without[:, None], others), dim=1)

    def positives(self, batch: Batch, targets: Tensor) -> Tensor:
        """(events,): the score of each event's item for its user without it."""
        return torch.einsum("ed,ed->e", self.without, F.embedding(batch.items, targets))


def softmax_loss(pooled: Pooled, batch: Batch, targets: Tensor, drawn: Drawn) -> Tensor:
    """The mean over events of `-log` the share that softmax gives the event's item.

    It stands against all items that its user has not, whose sum the drawn ones estimate.
    """
    scores = pooled.users @ F.embedding(drawn.items, targets).mT
    others = drawn.logits(scores).logsumexp(dim=1)
    # -log(e^p / (e^p + e^o)) = softplus(o - p)
    return F.softplus(others[batch.rows] - pooled.positives(batch, targets)).mean()


def _scale(lengths: Tensor, shrinkage: float) -> Tensor:
    return (lengths + shrinkage).clamp(min=1.0).rsqrt()


@dataclass(frozen=True, slots=True, eq=False)
class PooledEncoder:
    """The encoder of all families whose users are pools of their items."""

    sources: Tensor
    """(items, d) float32, on the processor."""
    shrinkage: float

    @classmethod
    def of(cls, tensors: Tensors, shrinkage: float) -> PooledEncoder:
        """The encoder of an artifact's tensors."""
        return cls(torch.from_numpy(np.require(tensors[SOURCES], np.float32, "W")), shrinkage)

    @property
    def dimension(self) -> int:
        """The dimensions of its vectors."""
        return self.sources.shape[1]

    @property
    def taste_dimension(self) -> int:
        """All of them: there is no bias."""
        return self.dimension

    def encode(self, histories: Histories) -> NDArray[np.float32]:
        """The vectors (users, d); 0 for an empty history."""
        batch = batch_of(histories)
        with torch.inference_mode():
            sums = F.embedding_bag(batch.items, self.sources, batch.starts, mode="sum")
            vectors = sums * _scale(batch.lengths, self.shrinkage)[:, None]
        return vectors.numpy()
