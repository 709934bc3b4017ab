"""What is new in a training since it was last looked at."""

from __future__ import annotations

from collections.abc import Iterator

from milvine.api.convert.operations import training_metadata
from milvine.domain.operation import Operation
from milvine.v1 import model_service_pb2 as pb


class TrainingNews:
    """The news of one training, for one watcher."""

    def __init__(self) -> None:
        self._stage = pb.TrainModelMetadata.STAGE_UNSPECIFIED
        self._epochs = 0
        """How many epochs of the stage the watcher knows."""

    def since_last(self, operation: Operation) -> Iterator[pb.WatchTrainingResponse]:
        """Yield each epoch that ended since, or the stage alone where only that changed."""
        metadata = training_metadata(operation)
        is_new_stage = metadata.stage != self._stage
        known = 0 if is_new_stage else self._epochs
        news = metadata.epochs[known:]
        self._stage, self._epochs = metadata.stage, len(metadata.epochs)
        for epoch in news:
            yield pb.WatchTrainingResponse(
                stage=metadata.stage, progress=metadata.progress, epoch=epoch
            )
        if is_new_stage and not news:
            yield pb.WatchTrainingResponse(stage=metadata.stage, progress=metadata.progress)
