"""What is new in a training since it was last looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from milvine.api.convert.operations import training_metadata
from milvine.domain.operation import Operation
from milvine.v1 import model_pb2
from milvine.v1 import model_service_pb2 as pb

_Metadata: TypeAlias = pb.TrainModelMetadata
_FITTING = {
    _Metadata.STAGE_FITTING_HOLDOUT: "holdout_epochs",
    _Metadata.STAGE_FITTING: "epochs",
}
"""The steps that have epochs, in their order, and where those stand."""


class TrainingNews:
    """The news of one training, for one watcher."""

    def __init__(self) -> None:
        self._stage = _Metadata.STAGE_UNSPECIFIED
        self._known = dict.fromkeys(_FITTING, 0)
        """How many epochs of each step the watcher knows."""

    def since_last(self, operation: Operation) -> Iterator[pb.WatchTrainingResponse]:
        """Yield each epoch that ended since, then the step under way where it has none of them."""
        metadata = training_metadata(operation)
        told = self._stage
        for stage, name in _FITTING.items():
            epochs = getattr(metadata, name)
            for epoch in epochs[self._known[stage] :]:
                told = stage
                yield _news(metadata, stage, epoch=epoch)
            self._known[stage] = max(self._known[stage], len(epochs))
        if metadata.stage != told:
            yield _news(metadata, metadata.stage)
        self._stage = metadata.stage


def _news(
    metadata: _Metadata,
    stage: _Metadata.Stage.ValueType,
    *,
    epoch: model_pb2.EpochReport | None = None,
) -> pb.WatchTrainingResponse:
    return pb.WatchTrainingResponse(stage=stage, progress=metadata.progress, epoch=epoch)
