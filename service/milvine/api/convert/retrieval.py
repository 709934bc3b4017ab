"""What callers ask of retrieval, and what it found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from milvine.api.convert.examples import examples
from milvine.api.convert.interactions import history
from milvine.api.convert.ranking import ranking as ranking_of
from milvine.api.convert.values import (
    check_count,
    filter_text,
    parameters,
    required_id,
    required_ids,
    value_message,
    value_messages,
)
from milvine.api.paging import fingerprint, size_of
from milvine.domain.catalog import Catalog
from milvine.domain.errors import InvalidArgument
from milvine.domain.hit import Explanation, Hit, Recommendation, SearchMethod, Source
from milvine.domain.query import (
    DEFAULT_PAGE_SIZE,
    Consistency,
    Embeddings,
    FoundItems,
    HistorySubject,
    Neighbours,
    PopularItems,
    RankedItems,
    Selection,
    Subject,
    UserSubject,
    VectorSubject,
)
from milvine.domain.ranking import BY_SCORE, Ranking
from milvine.v1 import retrieval_pb2
from milvine.v1 import retrieval_service_pb2 as pb

MAX_EXCLUDED = 100_000
MAX_SUBJECTS = 256
MAX_IDS = 1_000
MAX_RANKED = 10_000
_MAX_DIMENSION = 32_768
_CONSISTENCIES: Mapping[int, Consistency] = {
    retrieval_pb2.CONSISTENCY_UNSPECIFIED: Consistency.BOUNDED,
    retrieval_pb2.CONSISTENCY_BOUNDED: Consistency.BOUNDED,
    retrieval_pb2.CONSISTENCY_STRONG: Consistency.STRONG,
}
_MAX_RETURN_FIELDS = 64
_SOURCES = {source: retrieval_pb2.Source.Value(f"SOURCE_{source}") for source in Source}
_METHODS = {
    method: retrieval_pb2.SearchMethod.Value(f"SEARCH_METHOD_{method}") for method in SearchMethod
}

Recommending: TypeAlias = pb.RecommendRequest | pb.BatchRecommendRequest
Searching: TypeAlias = (
    Recommending
    | pb.SimilarItemsRequest
    | pb.SimilarUsersRequest
    | pb.PopularItemsRequest
    | pb.FindAudienceRequest
    | pb.RecommendAllRequest
    | pb.SearchItemsRequest
)
_WITHOUT_PAGES = (pb.BatchRecommendRequest, pb.RecommendAllRequest, pb.SearchItemsRequest)


def subject(message: pb.Subject, catalog: Catalog | None, path: str) -> Subject:
    """Whom to recommend to; a history needs the catalog."""
    match message.WhichOneof("kind"):
        case "user_id":
            return UserSubject(required_id(message.user_id, f"{path}.user_id"))
        case "history" if catalog is not None:
            return HistorySubject(
                history(message.history.events, catalog, f"{path}.history.events")
            )
        case "vector":
            field = f"{path}.vector.values"
            return VectorSubject(_vector(message.vector.values, field), field)
        case "examples":
            return examples(message.examples, f"{path}.examples")
        case _:
            raise InvalidArgument.at(path, "must be a user_id, a history, a vector or examples")


def subjects(
    messages: Sequence[pb.Subject], paths: Sequence[str], catalog: Catalog | None
) -> list[Subject]:
    """Whom to recommend to, by the paths of the messages; a history needs the catalog."""
    return [subject(message, catalog, path) for message, path in zip(messages, paths, strict=True)]


def check_subject_count(messages: Sequence[pb.Subject]) -> None:
    """Raise InvalidArgument unless a batch has 1 to 256 subjects."""
    check_count(len(messages), "subjects", least=1, most=MAX_SUBJECTS)


def recommended(request: Recommending) -> Selection:
    """Which items to recommend."""
    excluded = required_ids(
        request.exclude_item_ids, "exclude_item_ids", least=0, most=MAX_EXCLUDED
    )
    return selection(
        request,
        exclude_ids=frozenset(excluded),
        include_seen=request.include_seen,
        consistency=consistency_of(request.consistency),
        ranking=ranking_of(request.ranking),
        explain=request.explain,
    )


def ranked(request: pb.RankItemsRequest) -> tuple[list[str], Selection]:
    """Which items to rank, and how."""
    item_ids = required_ids(request.item_ids, "item_ids", least=1, most=MAX_RANKED)
    return item_ids, Selection(
        return_fields=_return_fields(request.return_fields),
        consistency=consistency_of(request.consistency),
        ranking=ranking_of(request.ranking),
        explain=request.explain,
        release_id=_release_id(request.release_id),
    )


def audience(request: pb.FindAudienceRequest) -> Selection:
    """Which users to find for an item."""
    return selection(request, include_seen=request.include_seen)


def consistency_of(number: int) -> Consistency:
    """Which interactions to reflect."""
    if number not in _CONSISTENCIES:
        raise InvalidArgument.at("consistency", f"must be BOUNDED or STRONG, is {number}")
    return _CONSISTENCIES[number]


def selection(
    request: Searching,
    *,
    exclude_ids: frozenset[str] = frozenset(),
    include_seen: bool = False,
    consistency: Consistency = Consistency.BOUNDED,
    ranking: Ranking = BY_SCORE,
    explain: bool = False,
) -> Selection:
    """Which hits to find, by what all searches have in common and what only some have."""
    page_token, bound_to = "", b""
    if not isinstance(request, _WITHOUT_PAGES):
        page_token, bound_to = request.page_token, fingerprint(request)
    return Selection(
        page_size=size_of(request.page_size, DEFAULT_PAGE_SIZE),
        filter=filter_text(request.filter, "filter"),
        filter_params=parameters(request.filter_params, "filter_params"),
        return_fields=_return_fields(request.return_fields),
        exclude_ids=exclude_ids,
        include_seen=include_seen,
        consistency=consistency,
        ranking=ranking,
        explain=explain,
        release_id=_release_id(request.release_id),
        page_token=page_token,
        fingerprint=bound_to,
    )


def embedding_ids(request: pb.GetEmbeddingsRequest) -> tuple[list[str], list[str]]:
    """The items and the users whose embeddings are asked for."""
    if not request.item_ids and not request.user_ids:
        raise InvalidArgument.at("item_ids", "must have an id, or user_ids must")
    return (
        required_ids(request.item_ids, "item_ids", least=0, most=MAX_IDS),
        required_ids(request.user_ids, "user_ids", least=0, most=MAX_IDS),
    )


def recommendation_message(found: Recommendation) -> pb.RecommendResponse:
    """The message of a recommendation."""
    message = pb.RecommendResponse(
        next_page_token=found.next_page_token,
        release_id=found.release_id,
        source=_SOURCES[found.source],
        shortfall=shortfall_of(found),
        method=_METHODS[found.method],
    )
    add_items(message.hits, found.hits)
    return message


def user_recommendation_message(user_id: str, found: Recommendation) -> pb.UserRecommendation:
    """The message of a recommendation among those of many users."""
    message = pb.UserRecommendation(
        user_id=user_id,
        source=_SOURCES[found.source],
        shortfall=shortfall_of(found),
    )
    add_items(message.hits, found.hits)
    return message


def similar_items_message(found: Neighbours) -> pb.SimilarItemsResponse:
    """The message of items like an item."""
    message = pb.SimilarItemsResponse(
        next_page_token=found.next_page_token,
        release_id=found.release_id,
        shortfall=shortfall_of(found),
        method=_METHODS[found.method],
    )
    add_items(message.hits, found.hits)
    return message


def ranked_message(found: RankedItems) -> pb.RankItemsResponse:
    """The message of items in order."""
    message = pb.RankItemsResponse(
        release_id=found.release_id,
        source=_SOURCES[found.source],
        missing_item_ids=found.missing_ids,
    )
    add_items(message.hits, found.hits)
    return message


def audience_message(found: Neighbours) -> pb.FindAudienceResponse:
    """The message of the users whom an item fits."""
    return pb.FindAudienceResponse(
        hits=_user_hits(found.hits),
        next_page_token=found.next_page_token,
        release_id=found.release_id,
        shortfall=shortfall_of(found),
        method=_METHODS[found.method],
    )


def similar_users_message(found: Neighbours) -> pb.SimilarUsersResponse:
    """The message of users like a user."""
    return pb.SimilarUsersResponse(
        hits=_user_hits(found.hits),
        next_page_token=found.next_page_token,
        release_id=found.release_id,
        shortfall=shortfall_of(found),
        method=_METHODS[found.method],
    )


def popular_items_message(found: PopularItems) -> pb.PopularItemsResponse:
    """The message of popular items."""
    message = pb.PopularItemsResponse(
        next_page_token=found.next_page_token,
        release_id=found.release_id,
        shortfall=shortfall_of(found),
    )
    add_items(message.hits, found.hits)
    return message


def embeddings_message(
    found: Embeddings, item_ids: Sequence[str], user_ids: Sequence[str]
) -> pb.GetEmbeddingsResponse:
    """The message of embeddings, in the order asked for."""
    return pb.GetEmbeddingsResponse(
        items=[
            pb.ItemEmbedding(item_id=i, vector=_vector_message(found.items[i]))
            for i in item_ids
            if i in found.items
        ],
        users=[
            pb.UserEmbedding(user_id=i, vector=_vector_message(found.users[i]))
            for i in user_ids
            if i in found.users
        ],
        missing_item_ids=[i for i in item_ids if i not in found.items],
        missing_user_ids=[i for i in user_ids if i not in found.users],
        release_id=found.release_id,
    )


def _release_id(identifier: str) -> str:
    """The release to ask; empty for the active one."""
    return required_id(identifier, "release_id") if identifier else ""


def _return_fields(names: Sequence[str]) -> tuple[str, ...]:
    check_count(len(names), "return_fields", least=0, most=_MAX_RETURN_FIELDS)
    if "*" in names and len(names) > 1:
        raise InvalidArgument.at("return_fields", "must be `*` alone or names of fields")
    return tuple(dict.fromkeys(names))


def _vector(values: Sequence[float], path: str) -> np.ndarray:
    check_count(len(values), path, least=1, most=_MAX_DIMENSION)
    vector = np.array(values, np.float32)  # (dimension,)
    if not np.isfinite(vector).all():
        raise InvalidArgument.at(path, "must have finite numbers only")
    return vector


def add_items(messages: RepeatedCompositeFieldContainer[pb.ItemHit], hits: Iterable[Hit]) -> None:
    """Add the messages of hits, in place: made one by one they take three times as long."""
    for hit in hits:
        message = messages.add()
        message.item_id = hit.id
        message.score = hit.score
        for name, value in hit.fields.items():
            message.fields[name].CopyFrom(value_message(value))
        if hit.explanation is not None:
            message.explanation.CopyFrom(_explanation(hit.explanation))


def _explanation(why: Explanation) -> pb.Explanation:
    return pb.Explanation(
        base_score=why.base_score,
        contributions=[pb.Contribution(item_id=i, amount=n) for i, n in why.contributions],
        boosts=[pb.AppliedBoost(index=i, factor=f) for i, f in why.boosts],
        retrieval_score=why.retrieval_score,
    )


def _user_hits(hits: Iterable[Hit]) -> list[pb.UserHit]:
    return [
        pb.UserHit(user_id=hit.id, score=hit.score, fields=value_messages(hit.fields))
        for hit in hits
    ]


def _vector_message(vector: np.ndarray) -> pb.Vector:
    return pb.Vector(values=vector.tolist())


def source_of(source: Source) -> retrieval_pb2.Source.ValueType:
    """How hits were found."""
    return _SOURCES[source]


def shortfall_of(
    found: Recommendation | Neighbours | PopularItems | FoundItems,
) -> retrieval_pb2.Shortfall.ValueType:
    """Why there are fewer hits than asked for."""
    if found.is_short:
        return retrieval_pb2.SHORTFALL_NO_MORE_MATCHES
    return retrieval_pb2.SHORTFALL_NONE
