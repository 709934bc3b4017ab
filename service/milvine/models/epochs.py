"""The passes of a fit over the data."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from milvine.domain.errors import FailedPrecondition, Reason
from milvine.domain.model import EpochReport
from milvine.models.base import OnEpoch


class Epochs:
    """Counts the passes, and reports each as it ends."""

    def __init__(self, count: int, on_epoch: OnEpoch) -> None:
        self.count = count
        self.reports: tuple[EpochReport, ...] = ()
        self._on_epoch = on_epoch
        self._start = time.perf_counter()

    def __iter__(self) -> Iterator[int]:
        """The numbers of the passes that are still to come."""
        return iter(range(len(self.reports) + 1, self.count + 1))

    def end(self, loss: float, metric: float | None = None) -> None:
        """Report a pass.

        Args:
            loss: The mean over the pass.
            metric: What was measured on interactions held out of the fit.

        Raises:
            FailedPrecondition: When the loss is not finite.
        """
        now = time.perf_counter()
        report = EpochReport(len(self.reports) + 1, self.count, loss, now - self._start, metric)
        if not math.isfinite(loss):
            raise diverged(report.epoch)
        self._start = now
        self.reports = (*self.reports, report)
        self._on_epoch(report)


def diverged(epoch: int, *, setting: str = "", kept: int = 0) -> FailedPrecondition:
    """The error of a training whose loss is no longer finite.

    Args:
        epoch: The pass in which it was seen.
        setting: The setting to change first, with its value; empty where none stands out.
        kept: The pass whose weights are kept; 0 for none.
    """
    told = (
        f"the training diverged: the loss of epoch {epoch} is not finite; look for extreme values "
        "among the interactions and the settings"
    )
    if setting:
        told += f", and lower {setting}"
    if kept:
        told += f"; the best weights until then, of epoch {kept}, are kept"
    return FailedPrecondition(told, Reason.TRAINING_DIVERGED)
