"""The one loop of all models that learn by gradients.

A pass draws its batches and everything else that is random from one generator, seeded by the
config and the number of the pass. So a training that stops and goes on from its checkpoint makes
the same draws as one that never stopped, and on the processor gives the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from milvine.domain.errors import Cancelled, FailedPrecondition
from milvine.domain.model import EpochReport
from milvine.models import config as settings_of
from milvine.models.base import Run, Tensors
from milvine.models.config import real, whole
from milvine.models.epochs import Epochs, diverged

_LARGEST_GRADIENT = 10.0
"""Longer gradients are cut to this length, so that one batch does not undo the others."""
_LAST_RATE = 0.05
"""The share of the learning rate that is left at the end."""

B = TypeVar("B")


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


class Learner(Protocol[B]):
    """A model as the loop sees it."""

    @property
    def network(self) -> nn.Module:
        """What learns, on its device."""

    def batches(self, rng: torch.Generator) -> Iterable[B]:
        """What the steps of a pass learn from, in random order."""

    def loss(self, batch: B, rng: torch.Generator) -> Tensor:
        """The mean loss of a batch, a scalar."""

    def metric(self) -> float | None:
        """How good the model is by now, the more the better; None where nothing is held out."""


class Learned(NamedTuple):
    """What the loop tells of a training."""

    epochs: tuple[EpochReport, ...]
    divergence: FailedPrecondition | None = None
    """How it diverged, where it did after a checkpoint; the network has the best weights of it."""


def learn(learner: Learner[B], schedule: Schedule, run: Run) -> Learned:
    """Train by Adam (Kingma and Ba 2015) and leave the network with its best weights.

    Raises:
        Cancelled: When `run.cancelled` says so, asked before each step.
        FailedPrecondition: When a pass's loss is not finite and there is no checkpoint.
    """
    network = learner.network
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate, fused=True)
    epochs = Epochs(schedule.epochs, run.on_epoch)
    best = _Best()
    if run.checkpoints and (state := run.checkpoints.load()):
        _restore(state, network, optimizer, epochs, best)
        for report in epochs.reports:
            run.on_epoch(report)
    divergence = None
    rng = torch.Generator(run.device)
    for epoch in epochs:
        if schedule.patience and epoch > best.epoch + schedule.patience:
            break
        rng.manual_seed(_seed_of_pass(schedule.seed, epoch))
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * _rate(epoch, schedule.epochs)
        loss = _pass(learner, optimizer, rng, run)
        if not math.isfinite(loss):
            state = run.checkpoints.load() if run.checkpoints else None
            if not state:
                raise _diverged(schedule, epoch)
            _restore(state, network, optimizer, epochs, best)
            divergence = _diverged(schedule, epoch, kept=best.epoch)
            break
        metric = learner.metric()
        epochs.end(loss, metric)
        best.offer(network, epoch, metric)
        if run.checkpoints:
            run.checkpoints.save(_state(network, optimizer, epochs, best))
    best.restore(network)
    return Learned(epochs.reports, divergence)


def _diverged(schedule: Schedule, epoch: int, *, kept: int = 0) -> FailedPrecondition:
    setting = f"learning_rate, which is {schedule.learning_rate:g}"
    return diverged(epoch, setting=setting, kept=kept)


def _pass(
    learner: Learner[B], optimizer: torch.optim.Optimizer, rng: torch.Generator, run: Run
) -> float:
    """One pass over the data; returns the mean loss of its steps, NaN where weights overflowed."""
    learner.network.train()
    parameters = list(learner.network.parameters())
    total, steps = torch.zeros((), device=run.device), 0
    for batch in learner.batches(rng):
        if run.cancelled():
            raise Cancelled
        with torch.autocast(
            torch.device(run.device).type, torch.bfloat16, enabled=rng.device.type == "cuda"
        ):
            loss = learner.loss(batch, rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        optimizer.step()
        total += loss.detach()
        steps += 1
    learner.network.eval()
    is_sound = all(bool(weights.isfinite().all()) for weights in parameters)
    return float(total) / max(steps, 1) if is_sound else math.nan


def _rate(epoch: int, epochs: int) -> float:
    return max(_LAST_RATE, 1 - (epoch - 1) / epochs)


def _seed_of_pass(seed: int, epoch: int) -> int:
    """A seed of 63 bits; neighbouring seeds and passes share nothing."""
    words = np.random.SeedSequence([abs(seed), int(seed < 0), epoch]).generate_state(1, np.uint64)
    return int(words[0]) >> 1


class _Best:
    """The weights of the best pass by the metric; of the last where nothing is measured."""

    def __init__(self) -> None:
        self.epoch = 0
        self.metric: float | None = None
        self.weights: dict[str, Tensor] = {}

    def offer(self, network: nn.Module, epoch: int, metric: float | None) -> None:
        """Take a pass for the best unless an earlier one was as good."""
        if metric is not None and self.metric is not None and metric <= self.metric:
            return
        self.epoch, self.metric = epoch, metric
        if metric is not None:
            self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def restore(self, network: nn.Module) -> None:
        """Give the network its best weights."""
        if self.weights:
            network.load_state_dict(self.weights)


def _state(
    network: nn.Module, optimizer: torch.optim.Optimizer, epochs: Epochs, best: _Best
) -> Tensors:
    """Everything that the passes to come depend on, as arrays by name."""
    moments = optimizer.state_dict()["state"]
    return {
        **_arrays("network", network.state_dict()),
        **{k: v for i, each in moments.items() for k, v in _arrays(f"adam.{i}", each).items()},
        **_arrays("best", best.weights),
        "best_epoch": np.array([best.epoch]),
        "best_metric": np.array([math.nan if best.metric is None else best.metric]),
        "reports": np.array([_row(report) for report in epochs.reports]),
    }


def _restore(
    state: Tensors,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: Epochs,
    best: _Best,
) -> None:
    weights = _under("network", state)
    network.load_state_dict(weights)
    document = optimizer.state_dict()
    document["state"] = {
        i: moments
        for i in range(len(list(network.parameters())))
        if (moments := _under(f"adam.{i}", state))
    }
    optimizer.load_state_dict(document)
    best.weights = {k: v.to(weights[k].device) for k, v in _under("best", state).items()}
    best.epoch = int(state["best_epoch"].astype(np.int64)[0])
    metric = float(state["best_metric"].astype(np.float64)[0])
    best.metric = None if math.isnan(metric) else metric
    epochs.reports = tuple(_report(row, epochs.count) for row in state["reports"].astype(float))


def _arrays(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {f"{prefix}.{k}": v.detach().cpu().numpy().copy() for k, v in tensors.items()}


def _under(prefix: str, state: Tensors) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {
        name.removeprefix(start): torch.from_numpy(array.copy())
        for name, array in state.items()
        if name.startswith(start)
    }


def _row(report: EpochReport) -> list[float]:
    metric = math.nan if report.metric is None else report.metric
    return [report.epoch, report.loss, report.seconds, metric]


def _report(row: NDArray[np.float64], count: int) -> EpochReport:
    epoch, loss, took, metric = row.tolist()
    return EpochReport(int(epoch), count, loss, took, None if math.isnan(metric) else metric)
