"""What the servicers call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from milvine.models.base import Family
from milvine.records import Records
from milvine.releases import Releases
from milvine.retrieval import Retriever

Context: TypeAlias = grpc.aio.ServicerContext
_MAX_TIMEOUT_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases and records behind the API."""

    records: Records
    """Blocks: every call goes to a thread."""
    retriever: Retriever
    releases: Releases
    families: Mapping[str, Family[Any]]
    """By their names in the API."""
    call_timeout_s: float = 30.0
    """The seconds a unary call may take that sets no deadline of its own."""

    def timeout_s(self, context: Context) -> float:
        """The seconds that a call has left."""
        left = context.time_remaining()
        return self.call_timeout_s if left is None else min(left, _MAX_TIMEOUT_S)
