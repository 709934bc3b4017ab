"""Recommendations for every user, as messages of a size that any client takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from milvine.api.convert.ranking import ranking
from milvine.api.convert.retrieval import (
    MAX_EXCLUDED,
    selection,
    user_recommendation_message,
)
from milvine.api.convert.values import required_id, required_ids
from milvine.domain.query import Selection
from milvine.retrieval import RecommendedPage
from milvine.v1 import retrieval_service_pb2 as pb

_MOST_HITS = 2_000
"""Hits of a message: other calls wait while one is made."""
_MOST_BYTES = 1 << 20
"""Bytes of a message, but for one user's; gRPC's clients take 4 MiB unless told otherwise."""


def recommended_to_all(request: pb.RecommendAllRequest) -> Selection:
    """Which items to recommend."""
    excluded = required_ids(
        request.exclude_item_ids, "exclude_item_ids", least=0, most=MAX_EXCLUDED
    )
    return replace(
        selection(request),
        exclude_ids=frozenset(excluded),
        include_seen=request.include_seen,
        ranking=ranking(request.ranking),
    )


def begin(request: pb.RecommendAllRequest) -> str:
    """The user after whom to begin; empty for the first."""
    user_id = request.after_user_id
    return required_id(user_id, "after_user_id") if user_id else ""


def page_messages(page: RecommendedPage) -> Iterator[pb.RecommendAllResponse]:
    """Yield the messages of a page; one without users where it has none."""
    message = _empty(page)
    hits = size = 0
    for user_id, found in page.recommendations:
        one = user_recommendation_message(user_id, found)
        hits += len(one.hits)
        size += one.ByteSize()
        if message.recommendations and (hits > _MOST_HITS or size > _MOST_BYTES):
            yield message
            message = _empty(page)
            hits, size = len(one.hits), one.ByteSize()
        message.recommendations.append(one)
    yield message


def _empty(page: RecommendedPage) -> pb.RecommendAllResponse:
    return pb.RecommendAllResponse(release_id=page.release_id, user_count=page.user_count)
