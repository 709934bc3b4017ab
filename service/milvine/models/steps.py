"""The steps of a training by gradients, as each of its processes takes them.

A pass draws its batches and everything else that is random from one generator, seeded by the
config and the number of the pass. So a training that stops and goes on from its checkpoint makes
the same draws as one that never stopped, and so do processes that train together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from milvine.domain.errors import Cancelled
from milvine.models import config as settings_of
from milvine.models.base import IsCancelled
from milvine.models.batches import Batch
from milvine.models.config import real, whole

_LARGEST_GRADIENT = 10.0
"""Longer gradients are cut to this length, so that one batch does not undo the others."""
_LAST_RATE = 0.05
"""The share of the learning rate that is left at the end."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The settings that all models which learn by gradients share."""

    embedding_size: int = whole(64, 1, 2_048)
    """The dimensions of the embeddings."""
    epochs: int = whole(20, 1, 1_000)
    """The passes over the data, at most."""
    batch_size: int = whole(16_384, 1, 2**20)
    """About how many events a step learns from; a user's stay together."""
    learning_rate: float = real(0.005, 0, excludes_low=True)
    """The length of the first steps; it falls to a twentieth along a line."""
    regularization: float = real(0.0, 0)
    """The strength of the L2 penalty on the embeddings that a step touches."""
    patience: int = whole(0, 0, 1_000)
    """Passes without a better metric after which training stops; 0 measures nothing and never."""
    seed: int = settings_of.seed()
    """The seed of everything random."""


class Learner(Protocol):
    """A model as the loop sees it."""

    @property
    def network(self) -> nn.Module:
        """What learns, on its device."""

    def batches(self, rng: torch.Generator) -> Iterable[Batch]:
        """What the steps of a pass learn from, in random order."""

    def examples(self, batch: Batch) -> Tensor | int:
        """How many examples of a batch the loss is the mean of, a scalar."""

    def loss(self, batch: Batch, rng: torch.Generator) -> Tensor:
        """The mean loss of a batch or a share of one, a scalar.

        What is random is drawn for the whole batch, so that it does not depend on the shares.
        """

    def metric(self) -> float | None:
        """How good the model is by now, the more the better; None where nothing is held out."""


class Peers(Protocol):
    """The processes that take each step together."""

    @property
    def rank(self) -> int:
        """The place of this one, from 0."""

    @property
    def count(self) -> int:
        """How many they are."""

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Put in place of each tensor the sum of what the processes have of it."""


@dataclass(frozen=True, slots=True)
class Alone:
    """A process that takes its steps by itself."""

    rank: int = 0
    count: int = 1

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Leave each tensor as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """What takes the steps of a training: all that its passes depend on."""

    learner: Learner
    schedule: Schedule
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, learner: Learner, schedule: Schedule) -> Steps:
        """Steps by Adam (Kingma and Ba 2015)."""
        parameters, rate = learner.network.parameters(), schedule.learning_rate
        return cls(learner, schedule, torch.optim.Adam(parameters, lr=rate, fused=True))

    def take(self, epoch: int, device: torch.device, peers: Peers, cancelled: IsCancelled) -> float:
        """Take those of one pass over the data.

        Returns:
            The mean loss of its steps, NaN where weights overflowed.

        Raises:
            Cancelled: When `cancelled` says so, asked before each step.
        """
        rng = torch.Generator(device)
        rng.manual_seed(_seed_of_pass(self.schedule.seed, epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * _rate(epoch, self.schedule.epochs)
        network = self.learner.network.train()
        total, steps = torch.zeros((), device=device), 0
        for batch in self.learner.batches(rng):
            if cancelled():
                raise Cancelled
            total += self._take_one(batch, rng, peers)
            steps += 1
        network.eval()
        peers.add_up([total])
        is_sound = all(bool(weights.isfinite().all()) for weights in network.parameters())
        return float(total) / max(steps, 1) if is_sound else math.nan

    def _take_one(self, batch: Batch, rng: torch.Generator, peers: Peers) -> Tensor:
        """Take one step; returns what this process has of its loss."""
        with torch.autocast(rng.device.type, torch.bfloat16, enabled=rng.device.type == "cuda"):
            loss = self._loss(batch, rng, peers)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self.learner.network.parameters())
        peers.add_up(weights.grad for weights in parameters if weights.grad is not None)
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        self.optimizer.step()
        return loss.detach()

    def _loss(self, batch: Batch, rng: torch.Generator, peers: Peers) -> Tensor:
        """This process's part of the loss of a batch; the parts of all add up to it."""
        if peers.count == 1:
            return self.learner.loss(batch, rng)
        share = batch.share(peers.rank, peers.count)
        loss = self.learner.loss(share, rng)
        if not len(share):
            return loss.nan_to_num()  # the mean of nothing, whose part is 0
        return loss * (self.learner.examples(share) / self.learner.examples(batch))


def _rate(epoch: int, epochs: int) -> float:
    return max(_LAST_RATE, 1 - (epoch - 1) / epochs)


def _seed_of_pass(seed: int, epoch: int) -> int:
    """A seed of 63 bits; neighbouring seeds and passes share nothing."""
    words = np.random.SeedSequence([abs(seed), int(seed < 0), epoch]).generate_state(1, np.uint64)
    return int(words[0]) >> 1
