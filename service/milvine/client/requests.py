"""Parts of requests from Python's own types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from milvine.client.types import (
    Entity,
    HistoryEvent,
    Interaction,
    set_time,
    timestamp,
    value_messages,
)
from milvine.v1 import (
    catalog_pb2,
    interaction_pb2,
    interaction_service_pb2,
    item_pb2,
    model_pb2,
    retrieval_pb2,
    retrieval_service_pb2,
    tuning_pb2,
    user_pb2,
)

M = TypeVar("M", bound=Message)
Settings: TypeAlias = Mapping[str, object]
"""Fields of a message by name."""
Searched: TypeAlias = (
    tuple[float, float]
    | tuple[float, float, str]
    | list[float]
    | tuning_pb2.NumberRange
    | tuning_pb2.NumberChoices
)
"""Where a setting is looked for: `(low, high)`, `(low, high, "log")`, or a list of values."""
Examples: TypeAlias = Mapping[str, float] | Collection[str]
"""Items, or items with the weight of each."""
Fields: TypeAlias = Mapping[str, str] | Iterable[catalog_pb2.Field]
"""Declared fields: the types by name, or messages, which can say more."""


def fields(declared: Fields) -> list[catalog_pb2.Field]:
    """The declarations of `{"year": "INT64"}`, or of messages."""
    if not isinstance(declared, Mapping):
        return list(declared)
    return [catalog_pb2.Field(name=name, type=_field_type(k)) for name, k in declared.items()]


def event_types(
    declared: Iterable[str | catalog_pb2.EventType],
) -> list[catalog_pb2.EventType]:
    """The declarations of event types, names or messages."""
    return [catalog_pb2.EventType(name=e) if isinstance(e, str) else e for e in declared]


def item(entity: Entity) -> item_pb2.Item:
    """The message of an item."""
    return item_pb2.Item(item_id=entity.id, fields=value_messages(entity.fields))


def user(entity: Entity) -> user_pb2.User:
    """The message of a user."""
    return user_pb2.User(user_id=entity.id, fields=value_messages(entity.fields))


def interactions(
    events: Iterable[Interaction | interaction_pb2.Interaction],
) -> Iterator[interaction_pb2.Interaction]:
    """The messages of interactions; one without id and time gets the time of now.

    So that a batch which is sent again is known again. Each is made when it is asked for: a list of
    thousands would take twice the time, for the garbage collector walks over what is kept.
    """
    now = datetime.now(UTC)
    return (_interaction(event, now) for event in events)


def model_config(
    config: model_pb2.ModelConfig | None, families: Mapping[str, Settings | Message | None]
) -> model_pb2.ModelConfig:
    """The config, or that of the one family that is given with its settings."""
    given = {name: settings for name, settings in families.items() if settings is not None}
    if len(given) + (config is not None) != 1:
        raise ValueError(f"give one family of {', '.join(families)}, and only one")
    if config is not None:
        return config
    made = model_pb2.ModelConfig()
    for name, settings in given.items():
        message: Message = getattr(made, name)
        message.SetInParent()
        message.MergeFrom(_message(settings, type(message)))
    return made


def family_config(
    given: model_pb2.ModelConfig | Mapping[str, Settings],
) -> model_pb2.ModelConfig:
    """The config of a family, or of `{"als": {"epochs": 10}}`."""
    return _message(given, model_pb2.ModelConfig)


def space(searched: Mapping[str, Searched]) -> list[tuning_pb2.SearchedSetting]:
    """Where settings are looked for, by name."""
    return [_searched(name, values) for name, values in searched.items()]


def metric(name: str) -> tuning_pb2.TuneMetric.ValueType:
    """What a search makes great."""
    metrics = {m.removeprefix("TUNE_METRIC_").lower(): n for m, n in tuning_pb2.TuneMetric.items()}
    if name.lower() not in metrics:
        raise ValueError(f"{name!r} is no metric of a search; there are: {', '.join(metrics)}")
    return metrics[name.lower()]


def _searched(name: str, values: Searched) -> tuning_pb2.SearchedSetting:
    match values:
        case tuning_pb2.NumberRange():
            return tuning_pb2.SearchedSetting(name=name, range=values)
        case tuning_pb2.NumberChoices():
            return tuning_pb2.SearchedSetting(name=name, choices=values)
        case (low, high, *rest) if isinstance(values, tuple) and rest in ([], ["log"]):
            between = tuning_pb2.NumberRange(low=low, high=high, log_scale=bool(rest))
            return tuning_pb2.SearchedSetting(name=name, range=between)
        case list():
            choices = tuning_pb2.NumberChoices(values=values)
            return tuning_pb2.SearchedSetting(name=name, choices=choices)
        case _:
            raise ValueError(
                f"{name!r} is looked for in (low, high), (low, high, 'log') or a list of values"
            )


def holdout(given: Settings | model_pb2.Holdout | None) -> model_pb2.Holdout | None:
    """How to measure a model."""
    return None if given is None else _message(given, model_pb2.Holdout)


async def interaction_batches(
    catalog_id: str,
    batches: AsyncIterator[Sequence[Interaction | interaction_pb2.Interaction]],
) -> AsyncIterator[interaction_service_pb2.StreamInteractionsRequest]:
    """Yield the messages of a stream."""
    async for batch in batches:
        yield interaction_service_pb2.StreamInteractionsRequest(
            catalog_id=catalog_id, interactions=interactions(batch)
        )


def search(
    catalog_id: str,
    query: str,
    user: str | None,
    history: Sequence[HistoryEvent | str] | None,
    weights: tuple[float, float] | None,
) -> retrieval_service_pb2.SearchItemsRequest:
    """A search by text, for whom, and how both orders become one."""
    request = retrieval_service_pb2.SearchItemsRequest(catalog_id=catalog_id, query=query)
    if user is not None or history is not None:
        request.subject.CopyFrom(subject(user, history))
    if weights is not None:
        request.weights.text, request.weights.personal = weights
    return request


def subject(
    user: str | None = None,
    history: Sequence[HistoryEvent | str] | None = None,
    vector: Sequence[float] | None = None,
    liked: Examples = (),
    disliked: Examples = (),
) -> retrieval_service_pb2.Subject:
    """Whom to recommend to: a user, a history, a vector, or what they liked and disliked."""
    ways = (user is not None, history is not None, vector is not None, bool(liked or disliked))
    if sum(ways) != 1:
        raise ValueError("give a user, a history, a vector or examples, and only one of them")
    if user is not None:
        return retrieval_service_pb2.Subject(user_id=user)
    if history is not None:
        events = retrieval_service_pb2.History(events=map(_history_event, history))
        return retrieval_service_pb2.Subject(history=events)
    if vector is not None:
        point = retrieval_service_pb2.Vector(values=vector)
        return retrieval_service_pb2.Subject(vector=point)
    taste = retrieval_service_pb2.Examples(
        positives=_examples(liked), negatives=_examples(disliked)
    )
    return retrieval_service_pb2.Subject(examples=taste)


def _examples(given: Examples) -> list[retrieval_service_pb2.Example]:
    if isinstance(given, Mapping):
        return [retrieval_service_pb2.Example(item_id=i, weight=w) for i, w in given.items()]
    return [retrieval_service_pb2.Example(item_id=item) for item in given]


def _message(given: Settings | M, kind: type[M]) -> M:
    return ParseDict(dict(given), kind()) if isinstance(given, Mapping) else given


def _field_type(name: str) -> catalog_pb2.Field.Type.ValueType:
    types = {kind.removeprefix("TYPE_"): n for kind, n in catalog_pb2.Field.Type.items() if n}
    if name.upper() not in types:
        raise ValueError(f"{name!r} is no type of a field; there are: {', '.join(types)}")
    return types[name.upper()]


def _interaction(
    event: Interaction | interaction_pb2.Interaction, now: datetime
) -> interaction_pb2.Interaction:
    if isinstance(event, interaction_pb2.Interaction):
        return _stamped(event, now)
    message = interaction_pb2.Interaction(
        event_id=event.event_id,
        user_id=event.user_id,
        item_id=event.item_id,
        event_type=event.event_type,
        value=event.value,
    )
    if moment := event.event_time or (None if event.event_id else now):
        set_time(message.event_time, moment)
    return message


def _stamped(event: interaction_pb2.Interaction, now: datetime) -> interaction_pb2.Interaction:
    if event.event_id or event.HasField("event_time"):
        return event
    copy = interaction_pb2.Interaction()
    copy.CopyFrom(event)
    set_time(copy.event_time, now)
    return copy


def _history_event(event: HistoryEvent | str) -> retrieval_service_pb2.HistoryEvent:
    if isinstance(event, str):
        return retrieval_service_pb2.HistoryEvent(item_id=event)
    return retrieval_service_pb2.HistoryEvent(
        item_id=event.item_id,
        event_type=event.event_type,
        value=event.value,
        event_time=timestamp(event.event_time),
    )


def consistency(*, strong: bool) -> retrieval_pb2.Consistency.ValueType:
    """Which interactions to reflect."""
    if strong:
        return retrieval_pb2.CONSISTENCY_STRONG
    return retrieval_pb2.CONSISTENCY_UNSPECIFIED
