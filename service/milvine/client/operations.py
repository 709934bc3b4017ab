"""Long work that goes on in the service: waiting, following, cancelling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.message import Message

from milvine.client.calls import Caller
from milvine.client.errors import RpcError
from milvine.v1 import (
    model_pb2,
    model_service_pb2,
    release_pb2,
    release_service_pb2,
    tuning_pb2,
    user_service_pb2,
)

R = TypeVar("R", bound=Message)
_WAIT_S = 10
_ANSWER_S = 5.0
_POLL_S = 0.25
_METADATA = (
    model_service_pb2.TrainModelMetadata,
    model_service_pb2.TuneModelMetadata,
    model_service_pb2.EvaluateModelMetadata,
    release_service_pb2.PublishModelMetadata,
    user_service_pb2.EraseUserMetadata,
)
_EPOCHS = {"FITTING_HOLDOUT": "holdout_epochs", "FITTING": "epochs"}
"""Where metadata has the epochs of a step."""
_RESPONSES = (
    model_pb2.Model,
    tuning_pb2.Tuning,
    release_pb2.Release,
    user_service_pb2.EraseUserReceipt,
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an operation has come."""

    stage: str
    """The step under way, as `FITTING`; empty where it has not started."""
    progress: float
    """The share that is done, 0 to 1."""
    epochs: tuple[model_pb2.EpochReport, ...] = ()
    """The passes that have ended of the training's step under way."""
    trials: tuple[tuning_pb2.Trial, ...] = ()
    """The trials of a search that have ended."""


class OperationHandle(Generic[R]):
    """An operation by its name; `R` is the message that it makes."""

    def __init__(self, name: str, caller: Caller, stub: operations_pb2_grpc.OperationsStub) -> None:
        self.name = name
        self._caller = caller
        self._stub = stub

    async def get(self) -> operations_pb2.Operation:
        """The operation as it is now."""
        request = operations_pb2.GetOperationRequest(name=self.name)
        return await self._caller.call(self._stub.GetOperation, request)

    async def watch(self) -> AsyncIterator[Progress]:
        """Yield the progress each time it changes, and last of all when the operation is done.

        Does not raise where the operation failed: `result` does.
        """
        last: Progress | None = None
        is_done = False
        while not is_done:
            operation = await self.get()
            is_done = operation.done
            if (progress := _progress(operation)) != last:
                yield progress
                last = progress
            if not is_done:
                await asyncio.sleep(_POLL_S)

    async def result(self, timeout_s: float | None = None) -> R:
        """What the operation made, when it is done.

        Raises:
            RpcError: It failed or was cancelled.
            TimeoutError: It is not done after `timeout_s` seconds; it goes on.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        operation = await self.get()
        while not operation.done:
            if ends is not None and time.monotonic() >= ends:
                raise TimeoutError(f"{self.name} is not done after {timeout_s} seconds")
            operation = await self._wait(ends)
        if operation.HasField("error"):
            raise RpcError.of_operation(operation.error)
        made: R = _unpacked(operation.response, _RESPONSES)
        return made

    async def cancel(self) -> None:
        """Ask that the operation stops; `result` raises where it did."""
        request = operations_pb2.CancelOperationRequest(name=self.name)
        await self._caller.call(self._stub.CancelOperation, request)

    async def _wait(self, ends: float | None) -> operations_pb2.Operation:
        wait_s = _WAIT_S if ends is None else min(_WAIT_S, max(0.0, ends - time.monotonic()))
        request = operations_pb2.WaitOperationRequest(name=self.name)
        request.timeout.FromNanoseconds(int(wait_s * 1e9))
        return await self._caller.call(self._stub.WaitOperation, request, wait_s + _ANSWER_S)


def _progress(operation: operations_pb2.Operation) -> Progress:
    metadata = _unpacked(operation.metadata, _METADATA)
    fields = metadata.DESCRIPTOR.fields_by_name
    if "stage" not in fields:
        return Progress("", float(operation.done))
    stage = fields["stage"].enum_type.values_by_number[metadata.stage].name
    name = stage.removeprefix("STAGE_").removesuffix("UNSPECIFIED")
    epochs = tuple(getattr(metadata, _EPOCHS.get(name, ""), ()))
    trials = tuple(metadata.trials) if "trials" in fields else ()
    return Progress(name, metadata.progress, epochs, trials)


def _unpacked(packed: Any, kinds: tuple[type[Message], ...]) -> Any:  # noqa: ANN401 - of any type
    for kind in kinds:
        message = kind()
        if packed.Unpack(message):
            return message
    raise TypeError(f"the service sent {packed.type_url}; a newer client knows it")
