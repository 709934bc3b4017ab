"""What a caller is told when a training needs more memory than there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from milvine.domain.errors import LimitReached, Reason
from milvine.domain.model import ModelConfig
from milvine.models import filled

_SIZES = ("embedding_size", "batch_size", "history_length", "negative_count")
"""The settings that memory grows with, the first ones most."""
_ALLOCATOR = "DefaultCPUAllocator"
"""torch has no type of error for the processor's memory: its allocator signs the text."""


@contextmanager
def memory_told(config: ModelConfig, *, process_count: int = 1) -> Iterator[None]:
    """Tell of memory that ran out with the settings that it grows with, and the processes.

    Raises:
        LimitReached: When the processor or the device had no more memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        if not is_out_of_memory(exc):
            raise
        settings = filled(config).settings
        sizes = [f"{name}, which is {settings[name]:,}" for name in _SIZES if name in settings]
        if process_count > 1:
            sizes.append(f"process_count, which is {process_count}")
        raise LimitReached(
            f"the training needs more memory than its worker has; lower {' or '.join(sizes)}, "
            "or let a worker with more memory train it",
            Reason.OUT_OF_MEMORY,
        ) from exc


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether an error of Python, NumPy, Arrow or torch says that memory ran out."""
    return isinstance(exc, MemoryError | torch.OutOfMemoryError) or _ALLOCATOR in str(exc)
