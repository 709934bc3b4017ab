"""Searches by text, and what they found."""

from __future__ import annotations

import math

from milvine.api.convert.retrieval import (
    add_items,
    consistency_of,
    selection,
    shortfall_of,
    source_of,
)
from milvine.api.convert.values import required_ids
from milvine.domain.errors import InvalidArgument
from milvine.domain.query import FoundItems, Fusion, ReciprocalRank, Selection, Weights
from milvine.v1 import retrieval_service_pb2 as pb

MAX_QUERY_BYTES = 4_096
MAX_EXCLUDED = 100_000
_MOST = 1e6
"""The greatest weight, and k."""


def query_text(text: str) -> str:
    """What to search for."""
    size = len(text.encode())
    if not text.strip():
        raise InvalidArgument.at("query", "must not be blank")
    if size > MAX_QUERY_BYTES:
        raise InvalidArgument.at("query", f"must be at most {MAX_QUERY_BYTES:,} bytes, is {size:,}")
    if "\x00" in text:
        raise InvalidArgument.at("query", "must not have the character U+0000")
    return text


def fusion(request: pb.SearchItemsRequest) -> Fusion:
    """How the orders by text and for the subject become one."""
    kind = request.WhichOneof("fusion")
    if kind is not None and not request.HasField("subject"):
        raise InvalidArgument.at(kind, "goes with a subject only")
    if kind == "weights":
        return _weights(request.weights)
    given = request.reciprocal_rank
    k = given.k if given.HasField("k") else ReciprocalRank().k
    if not 0 < k <= _MOST:
        raise InvalidArgument.at("reciprocal_rank.k", f"must be over 0 and at most {_MOST:,.0f}")
    return ReciprocalRank(k)


def _weights(message: pb.FusionWeights) -> Weights:
    for name in ("text", "personal"):
        weight = getattr(message, name)
        if not (math.isfinite(weight) and 0 <= weight <= _MOST):
            raise InvalidArgument.at(f"weights.{name}", f"must be 0 to {_MOST:,.0f}")
    if not message.text and not message.personal:
        raise InvalidArgument.at("weights", "must have one that is over 0")
    return Weights(message.text, message.personal)


def searched(request: pb.SearchItemsRequest) -> Selection:
    """Which items to find."""
    excluded = required_ids(
        request.exclude_item_ids, "exclude_item_ids", least=0, most=MAX_EXCLUDED
    )
    if request.exclude_seen and not request.HasField("subject"):
        raise InvalidArgument.at("exclude_seen", "goes with a subject only")
    return selection(
        request,
        exclude_ids=frozenset(excluded),
        include_seen=not request.exclude_seen,
        consistency=consistency_of(request.consistency),
    )


def found_message(found: FoundItems) -> pb.SearchItemsResponse:
    """The message of what was found."""
    message = pb.SearchItemsResponse(
        release_id=found.release_id,
        source=source_of(found.source),
        shortfall=shortfall_of(found),
    )
    add_items(message.hits, found.hits)
    return message
