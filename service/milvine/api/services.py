"""What the servicers call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import grpc

from milvine.models.base import Family
from milvine.records import Records
from milvine.releases import Releases
from milvine.retrieval import Retriever, TextSearch

Context: TypeAlias = grpc.aio.ServicerContext
_MAX_TIMEOUT_S = 3_600.0


class Services(Protocol):
    """The records and use cases behind the API.

    Looked up at each call: what is away raises Unavailable then, and may come back.
    """

    @property
    def records(self) -> Records:
        """The records, whose calls block: each goes to a thread."""

    @property
    def retriever(self) -> Retriever:
        """Retrieval."""

    @property
    def text_search(self) -> TextSearch:
        """Retrieval by what items say."""

    @property
    def releases(self) -> Releases:
        """Releases, and the deletion of what hangs on them."""

    @property
    def families(self) -> Mapping[str, Family[Any]]:
        """The families of models by their names in the API."""

    @property
    def call_timeout_s(self) -> float:
        """The seconds that a unary call may take which sets no deadline of its own."""

    def timeout_s(self, context: Context) -> float:
        """The seconds that a call has left."""
        left = context.time_remaining()
        return self.call_timeout_s if left is None else min(left, _MAX_TIMEOUT_S)
