"""Models and trainings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from milvine.api.convert import evaluations
from milvine.api.convert.values import display_name, duration, raise_all, timestamp
from milvine.domain.catalog import Catalog
from milvine.domain.errors import InvalidArgument
from milvine.domain.model import ContentSource, EpochReport, Model, ModelConfig, Setting
from milvine.jobs.payloads import TrainRequest
from milvine.models.base import Family, ReadsFields
from milvine.v1 import model_pb2, model_service_pb2

Families = Mapping[str, Family[object]]
MOST_PROCESSES = 64
"""Of a training: more make the shares of a batch too small to be worth their while."""


def training(
    request: model_service_pb2.TrainModelRequest,
    catalog: Catalog,
    families: Families,
    *,
    model_id: str,
) -> TrainRequest:
    """The training that a request asks for, checked against the catalog and the family."""
    raise_all(evaluations.unknown_events(request.event_types, catalog, "event_types"))
    config = checked_config(request.config, catalog, families)
    return TrainRequest(
        catalog_id=catalog.id,
        model_id=model_id,
        config=config,
        holdout=evaluations.holdout(request.holdout, catalog),
        event_types=tuple(dict.fromkeys(request.event_types)),
        display_name=display_name(request.display_name, "display_name"),
        process_count=_process_count(request.process_count, config.family, families),
    )


def _process_count(asked: int, family: str, families: Families) -> int:
    """How many processes train; raises InvalidArgument where the family can't have so many."""
    if not 0 <= asked <= MOST_PROCESSES:
        rule = f"must be from 1 to {MOST_PROCESSES}, or 0 for 1, is {asked}"
        raise InvalidArgument.at("process_count", rule)
    if asked > 1 and not families[family].is_parallel:
        able = ", ".join(name for name, each in families.items() if each.is_parallel)
        rule = f"must be 1 for {family}, is {asked}; several processes can train {able}"
        raise InvalidArgument.at("process_count", rule)
    return asked or 1


def model_message(model: Model) -> model_pb2.Model:
    """The message of a model."""
    return model_pb2.Model(
        model_id=model.id,
        catalog_id=model.catalog_id,
        display_name=model.display_name,
        config=config_message(model.config),
        user_count=model.user_count,
        item_count=model.item_count,
        pair_count=model.pair_count,
        dimension=model.dimension,
        data_fingerprint=model.data_fingerprint,
        evaluation=evaluations.evaluation_message(model.evaluation) if model.evaluation else None,
        train_duration=duration(model.train_seconds),
        epochs=epoch_messages(model.epochs),
        holdout_epochs=epoch_messages(model.holdout_epochs),
        event_types=model.event_types,
        content_map=_content_message(model.content),
        divergence=model.divergence,
        create_time=timestamp(model.create_time),
        latest_event_time=timestamp(model.latest_event_time),
    )


def _content_message(content: ContentSource | None) -> model_pb2.ContentMap | None:
    if content is None:
        return None
    return model_pb2.ContentMap(
        text_fields=content.text_fields,
        text_encoder=content.text_encoder,
        item_count=content.item_count,
        explained_variance=content.explained,
    )


def epoch_messages(epochs: Iterable[EpochReport]) -> list[model_pb2.EpochReport]:
    """The messages of epochs."""
    return [
        model_pb2.EpochReport(
            epoch=e.epoch,
            epoch_count=e.epoch_count,
            loss=e.loss,
            duration=duration(e.seconds),
            metric=e.metric,
        )
        for e in epochs
    ]


def checked_config(
    message: model_pb2.ModelConfig, catalog: Catalog, families: Families
) -> ModelConfig:
    """The family and its settings, defaults filled in; fields that it names are declared."""
    name = message.WhichOneof("family")
    if name is None or name not in families:
        raise InvalidArgument.at("config", f"must set one family of {', '.join(sorted(families))}")
    given: dict[str, Setting] = {f.name: v for f, v in getattr(message, name).ListFields()}
    # A family's config is a dataclass of settings, whatever the family.
    family, config = families[name], families[name].config(given)
    if isinstance(family, ReadsFields):
        family.fields(config, catalog)
    settings: dict[str, Setting] = asdict(config)  # type: ignore[call-overload]
    return ModelConfig(name, settings)


def config_message(config: ModelConfig) -> model_pb2.ModelConfig:
    """The message of a family and its settings."""
    message = model_pb2.ModelConfig()
    if config.family not in message.DESCRIPTOR.fields_by_name:
        return message
    settings = getattr(message, config.family)
    settings.SetInParent()
    for name in settings.DESCRIPTOR.fields_by_name.keys() & config.settings.keys():
        setattr(settings, name, config.settings[name])
    return message
