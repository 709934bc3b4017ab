"""What the client takes and gives, in Python's own types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from milvine.v1 import (
    interaction_pb2,
    item_pb2,
    retrieval_pb2,
    retrieval_service_pb2,
    user_pb2,
    value_pb2,
)

Value: TypeAlias = str | int | float | bool | datetime | Sequence[str] | Sequence[int]
"""A value of a field; a datetime without a zone is taken as UTC, an aware one is given."""
Parameter: TypeAlias = Value | Sequence[float]
"""A value of a filter's placeholder."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entity:
    """An item or a user."""

    id: str
    fields: Mapping[str, Value] = field(default_factory=dict)
    create_time: datetime | None = None
    """Given by the service."""
    update_time: datetime | None = None
    """Given by the service."""


Item: TypeAlias = Entity
User: TypeAlias = Entity


@dataclass(frozen=True, slots=True)
class Interaction:
    """Something that a user did with an item."""

    user_id: str
    item_id: str
    event_type: str = ""
    """May be empty where the catalog declares just one."""
    value: float | None = None
    event_time: datetime | None = None
    """None: when the client sends it, or with an `event_id`, when the service receives it."""
    event_id: str = ""
    """Names the event, so that it is written once; else user, item, type and time do."""


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """Something that a person without an id did with an item."""

    item_id: str
    event_type: str = ""
    value: float | None = None
    event_time: datetime | None = None
    """None: just now."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of interactions: all are durable."""

    written: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an item was recommended."""

    base_score: float
    """The score before boosts."""
    contributions: tuple[tuple[str, float], ...]
    """Items of the history, and by how much the score would be lower without each."""
    boosts: tuple[tuple[int, float], ...]
    """The places of the boosts that apply, and the factor of each."""
    retrieval_score: float | None = None
    """The inner product by which it was retrieved; None where scores are inner products."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An item or user that was found."""

    id: str
    score: float
    fields: Mapping[str, Value]
    explanation: Explanation | None = None
    """Of an item, where it was asked for."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Items like an item or users like a user, most similar first."""

    hits: tuple[Hit, ...]
    release_id: str
    is_short: bool
    """Whether fewer of the release match than were asked for."""
    next_page_token: str = ""
    """Where the next page begins; empty when there is none."""


@dataclass(frozen=True, slots=True)
class RankedItems:
    """Items that were named, best first."""

    hits: tuple[Hit, ...]
    release_id: str
    is_popular: bool
    """Whether they are ranked by popularity, because nothing is known of the subject."""
    missing_ids: tuple[str, ...]
    """Those that the release does not have."""


@dataclass(frozen=True, slots=True)
class FoundItems:
    """Items by what they say, best first."""

    hits: tuple[Hit, ...]
    release_id: str
    is_popular: bool
    """Whether popularity stood in for a subject of whom nothing is known."""
    is_short: bool
    """Whether fewer items of the release match than were asked for."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A ranked list for one subject, best first."""

    hits: tuple[Hit, ...]
    release_id: str
    is_popular: bool
    """Whether popular items answered, because nothing is known of the subject."""
    is_short: bool
    """Whether fewer items of the release match than were asked for."""
    next_page_token: str = ""
    """Where the next page begins; empty when there is none."""


@dataclass(frozen=True, slots=True)
class PopularItems:
    """Items by their decayed, weighted counts, the most popular first."""

    hits: tuple[Hit, ...]
    release_id: str
    is_short: bool
    """Whether fewer of the release match, and have a count, than were asked for."""
    next_page_token: str


@dataclass(frozen=True, slots=True)
class UserRecommendation:
    """A ranked list for one user of many, best first."""

    user_id: str
    hits: tuple[Hit, ...]
    is_popular: bool
    """Whether popular items answered, because nothing is known of the user."""
    is_short: bool
    """Whether fewer items of the release match than were asked for."""


@dataclass(frozen=True, slots=True)
class RecommendedPage:
    """Ranked lists for some of all users, in the order of their ids."""

    users: tuple[UserRecommendation, ...]
    """None in the first page."""
    release_id: str
    user_count: int
    """How many users there are in all."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Stored vectors by id; the inner product of a user's and an item's is the score."""

    items: Mapping[str, Sequence[float]]
    users: Mapping[str, Sequence[float]]
    release_id: str


def value_message(value: Parameter) -> value_pb2.Value:
    """The message of a value."""
    match value:
        case bool():
            return value_pb2.Value(bool_value=value)
        case int():
            return value_pb2.Value(int64_value=value)
        case float():
            return value_pb2.Value(double_value=value)
        case str():
            return value_pb2.Value(string_value=value)
        case datetime():
            return value_pb2.Value(timestamp_value=timestamp(value))
        case _:
            return _list_message(value)


def value_messages(values: Mapping[str, Parameter]) -> dict[str, value_pb2.Value]:
    """The messages of values by name."""
    return {name: value_message(value) for name, value in values.items()}


def python_values(fields: Mapping[str, value_pb2.Value]) -> dict[str, Value]:
    """The values of fields."""
    return {name: _python_value(value) for name, value in fields.items()}


def timestamp(moment: datetime | None) -> Timestamp | None:
    """The message of a moment."""
    if moment is None:
        return None
    message = Timestamp()
    set_time(message, moment)
    return message


def set_time(message: Timestamp, moment: datetime) -> None:
    """Make a message say a moment; a field set so costs half of one set by `timestamp`."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = aware - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1_000


def duration(span: timedelta | None) -> Duration | None:
    """The message of a duration."""
    if span is None:
        return None
    message = Duration()
    message.FromTimedelta(span)
    return message


def moment(message: Timestamp) -> datetime:
    """The moment in UTC."""
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def entity(message: item_pb2.Item | user_pb2.User) -> Entity:
    """The entity of a message."""
    return Entity(
        message.item_id if isinstance(message, item_pb2.Item) else message.user_id,
        python_values(message.fields),
        moment(message.create_time),
        moment(message.update_time),
    )


def interaction(message: interaction_pb2.Interaction) -> Interaction:
    """The interaction of a message."""
    return Interaction(
        user_id=message.user_id,
        item_id=message.item_id,
        event_type=message.event_type,
        value=message.value if message.HasField("value") else None,
        event_time=moment(message.event_time),
        event_id=message.event_id,
    )


def recommendation(message: retrieval_service_pb2.RecommendResponse) -> Recommendation:
    """The recommendation of a message."""
    return Recommendation(
        hits=_hits(message.hits),
        release_id=message.release_id,
        is_popular=message.source == retrieval_pb2.SOURCE_POPULAR,
        is_short=_is_short(message),
        next_page_token=message.next_page_token,
    )


def found_items(message: retrieval_service_pb2.SearchItemsResponse) -> FoundItems:
    """The items of a message."""
    return FoundItems(
        hits=_hits(message.hits),
        release_id=message.release_id,
        is_popular=message.source == retrieval_pb2.SOURCE_POPULAR,
        is_short=_is_short(message),
    )


def recommended_page(
    message: retrieval_service_pb2.RecommendAllResponse, done: int
) -> RecommendedPage:
    """The page of a message; `done` users were answered for before its stream."""
    users = tuple(
        UserRecommendation(
            one.user_id,
            _hits(one.hits),
            is_popular=one.source == retrieval_pb2.SOURCE_POPULAR,
            is_short=_is_short(one),
        )
        for one in message.recommendations
    )
    return RecommendedPage(users, message.release_id, done + message.user_count)


def neighbours(
    message: retrieval_service_pb2.SimilarItemsResponse
    | retrieval_service_pb2.SimilarUsersResponse
    | retrieval_service_pb2.FindAudienceResponse,
) -> Neighbours:
    """The neighbours, or the audience, of a message."""
    return Neighbours(
        _hits(message.hits), message.release_id, _is_short(message), message.next_page_token
    )


def popular_items(message: retrieval_service_pb2.PopularItemsResponse) -> PopularItems:
    """The popular items of a message."""
    return PopularItems(
        _hits(message.hits), message.release_id, _is_short(message), message.next_page_token
    )


def embeddings(message: retrieval_service_pb2.GetEmbeddingsResponse) -> Embeddings:
    """The embeddings of a message."""
    return Embeddings(
        items={found.item_id: list(found.vector.values) for found in message.items},
        users={found.user_id: list(found.vector.values) for found in message.users},
        release_id=message.release_id,
    )


def ranked_items(message: retrieval_service_pb2.RankItemsResponse) -> RankedItems:
    """The items of a message."""
    return RankedItems(
        hits=_hits(message.hits),
        release_id=message.release_id,
        is_popular=message.source == retrieval_pb2.SOURCE_POPULAR,
        missing_ids=tuple(message.missing_item_ids),
    )


def _hits(
    messages: Iterable[retrieval_service_pb2.ItemHit | retrieval_service_pb2.UserHit],
) -> tuple[Hit, ...]:
    return tuple(map(_hit, messages))


def _hit(message: retrieval_service_pb2.ItemHit | retrieval_service_pb2.UserHit) -> Hit:
    fields = python_values(message.fields)
    if isinstance(message, retrieval_service_pb2.UserHit):
        return Hit(message.user_id, message.score, fields)
    why = _explanation(message.explanation) if message.HasField("explanation") else None
    return Hit(message.item_id, message.score, fields, why)


def _explanation(message: retrieval_service_pb2.Explanation) -> Explanation:
    return Explanation(
        message.base_score,
        tuple((one.item_id, one.amount) for one in message.contributions),
        tuple((one.index, one.factor) for one in message.boosts),
        message.retrieval_score if message.HasField("retrieval_score") else None,
    )


def _is_short(
    message: retrieval_service_pb2.RecommendResponse
    | retrieval_service_pb2.SimilarItemsResponse
    | retrieval_service_pb2.SimilarUsersResponse
    | retrieval_service_pb2.FindAudienceResponse
    | retrieval_service_pb2.PopularItemsResponse
    | retrieval_service_pb2.UserRecommendation
    | retrieval_service_pb2.SearchItemsResponse,
) -> bool:
    return message.shortfall == retrieval_pb2.SHORTFALL_NO_MORE_MATCHES


def _list_message(values: Sequence[str] | Sequence[float]) -> value_pb2.Value:
    texts = [value for value in values if isinstance(value, str)]
    wholes = [value for value in values if isinstance(value, int)]
    if len(texts) == len(values):
        return value_pb2.Value(string_list=value_pb2.StringList(values=texts))
    if len(wholes) == len(values):
        return value_pb2.Value(int64_list=value_pb2.Int64List(values=wholes))
    numbers = [float(value) for value in values]
    return value_pb2.Value(double_list=value_pb2.DoubleList(values=numbers))


def _python_value(value: value_pb2.Value) -> Value:
    match value.WhichOneof("kind"):
        case "timestamp_value":
            return moment(value.timestamp_value)
        case "string_list":
            return list(value.string_list.values)
        case "int64_list":
            return list(value.int64_list.values)
        case None:
            raise ValueError("the service sent a value without a kind")
        case kind:
            scalar: Value = getattr(value, kind)
            return scalar
