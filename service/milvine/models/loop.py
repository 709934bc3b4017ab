"""The one loop of all models that learn by gradients.

A training that stops and goes on from its checkpoint takes the steps that one which never stopped
takes, and on the processor gives the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from milvine.domain.errors import FailedPrecondition
from milvine.domain.model import EpochReport
from milvine.models.base import Run, Tensors
from milvine.models.epochs import Epochs, diverged
from milvine.models.parallel import together
from milvine.models.steps import Learner, Schedule, Steps


class Learned(NamedTuple):
    """What the loop tells of a training."""

    epochs: tuple[EpochReport, ...]
    divergence: FailedPrecondition | None = None
    """How it diverged, where it did after a checkpoint; the network has the best weights of it."""


def learn(learner: Learner, schedule: Schedule, run: Run) -> Learned:
    """Train, in as many processes as `run` says, and leave the network with its best weights.

    Raises:
        Cancelled: When `run.cancelled` says so, asked before each step.
        FailedPrecondition: When a pass's loss is not finite and there is no checkpoint, or there
            are more processes than GPUs.
        Aborted: When another of the processes ended.
    """
    network, steps = learner.network, Steps.of(learner, schedule)
    epochs = Epochs(schedule.epochs, run.on_epoch)
    best = _Best()
    if run.checkpoints and (state := run.checkpoints.load()):
        _restore(state, network, steps.optimizer, epochs, best)
        for report in epochs.reports:
            run.on_epoch(report)
    divergence = None
    with together(steps, run) as take_pass:
        for epoch in epochs:
            if schedule.patience and epoch > best.epoch + schedule.patience:
                break
            loss = take_pass(epoch)
            if not math.isfinite(loss):
                state = run.checkpoints.load() if run.checkpoints else None
                if not state:
                    raise _diverged(schedule, epoch)
                _restore(state, network, steps.optimizer, epochs, best)
                divergence = _diverged(schedule, epoch, kept=best.epoch)
                break
            metric = learner.metric()
            epochs.end(loss, metric)
            best.offer(network, epoch, metric)
            if run.checkpoints:
                run.checkpoints.save(_state(network, steps.optimizer, epochs, best))
    best.restore(network)
    return Learned(epochs.reports, divergence)


def _diverged(schedule: Schedule, epoch: int, *, kept: int = 0) -> FailedPrecondition:
    setting = f"learning_rate, which is {schedule.learning_rate:g}"
    return diverged(epoch, setting=setting, kept=kept)


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
