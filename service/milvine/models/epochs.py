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
        self.reports: tuple[EpochReport, ...] = ()
        self._count = count
        self._on_epoch = on_epoch
        self._start = time.perf_counter()

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, self._count + 1))

    def end(self, loss: float) -> None:
        """Report a pass; raises FailedPrecondition where its loss is not finite."""
        now = time.perf_counter()
        report = EpochReport(len(self.reports) + 1, self._count, loss, now - self._start)
        if not math.isfinite(loss):
            raise FailedPrecondition(
                f"the training diverged: the loss of epoch {report.epoch} is not finite; look for "
                "extreme values among the interactions and the settings",
                Reason.TRAINING_DIVERGED,
            )
        self._start = now
        self.reports = (*self.reports, report)
        self._on_epoch(report)
