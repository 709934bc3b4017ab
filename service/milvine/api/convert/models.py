"""Models and trainings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

from milvine.api.convert.values import check_count, display_name, duration, raise_all, timestamp
from milvine.domain.catalog import Catalog
from milvine.domain.errors import InvalidArgument, Violation
from milvine.domain.model import (
    EpochReport,
    Evaluation,
    Holdout,
    HoldoutMethod,
    Model,
    ModelConfig,
    RankingMetrics,
    Setting,
)
from milvine.jobs.payloads import TrainRequest
from milvine.models.base import Family, ReadsFields
from milvine.v1 import model_pb2, model_service_pb2

MAX_CUTOFF = 1_000
MAX_CUTOFFS = 10
_METHODS = {model_pb2.Holdout.Method.Value(f"METHOD_{m}"): m for m in HoldoutMethod}
_METHOD_NUMBERS = {m: n for n, m in _METHODS.items()}
_METHODS[model_pb2.Holdout.METHOD_UNSPECIFIED] = HoldoutMethod.LATEST

Families = Mapping[str, Family[object]]


def training(
    request: model_service_pb2.TrainModelRequest,
    catalog: Catalog,
    families: Families,
    *,
    model_id: str,
) -> TrainRequest:
    """The training that a request asks for, checked against the catalog and the family."""
    raise_all(_unknown_events(request.event_types, catalog))
    config = _config(request.config, families)
    family = families[config.family]
    if isinstance(family, ReadsFields):
        family.fields(family.config(config.settings), catalog)
    return TrainRequest(
        catalog_id=catalog.id,
        model_id=model_id,
        config=config,
        holdout=_holdout(request.holdout),
        event_types=tuple(dict.fromkeys(request.event_types)),
        display_name=display_name(request.display_name, "display_name"),
    )


def model_message(model: Model) -> model_pb2.Model:
    """The message of a model."""
    return model_pb2.Model(
        model_id=model.id,
        catalog_id=model.catalog_id,
        display_name=model.display_name,
        config=_config_message(model.config),
        user_count=model.user_count,
        item_count=model.item_count,
        pair_count=model.pair_count,
        dimension=model.dimension,
        data_fingerprint=model.data_fingerprint,
        evaluation=_evaluation_message(model.evaluation),
        train_duration=duration(model.train_seconds),
        epochs=epoch_messages(model.epochs),
        event_types=model.event_types,
        create_time=timestamp(model.create_time),
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


def _config(message: model_pb2.ModelConfig, families: Families) -> ModelConfig:
    name = message.WhichOneof("family")
    if name is None or name not in families:
        raise InvalidArgument.at("config", f"must set one family of {', '.join(sorted(families))}")
    given: dict[str, Setting] = {f.name: v for f, v in getattr(message, name).ListFields()}
    # A family's config is a dataclass of settings, whatever the family.
    settings: dict[str, Setting] = asdict(families[name].config(given))  # type: ignore[call-overload]
    return ModelConfig(name, settings)


def _config_message(config: ModelConfig) -> model_pb2.ModelConfig:
    message = model_pb2.ModelConfig()
    if config.family not in message.DESCRIPTOR.fields_by_name:
        return message
    settings = getattr(message, config.family)
    settings.SetInParent()
    for name in settings.DESCRIPTOR.fields_by_name.keys() & config.settings.keys():
        setattr(settings, name, config.settings[name])
    return message


def _holdout(message: model_pb2.Holdout) -> Holdout:
    if message.method not in _METHODS:
        raise InvalidArgument.at("holdout.method", f"must be one of {', '.join(HoldoutMethod)}")
    fraction = message.fraction if message.HasField("fraction") else None
    if fraction is not None and not 0 < fraction < 1:
        raise InvalidArgument.at("holdout.fraction", "must be over 0 and under 1")
    check_count(len(message.cutoffs), "holdout.cutoffs", least=0, most=MAX_CUTOFFS)
    raise_all(_bad_cutoffs(message.cutoffs))
    cutoffs = tuple(sorted(set(message.cutoffs))) or Holdout().cutoffs
    return Holdout(_METHODS[message.method], fraction, cutoffs, message.seed)


def _bad_cutoffs(cutoffs: Sequence[int]) -> Iterator[Violation]:
    for i, cutoff in enumerate(cutoffs):
        if not 1 <= cutoff <= MAX_CUTOFF:
            yield Violation(f"holdout.cutoffs[{i}]", f"must be 1 to {MAX_CUTOFF:,}, is {cutoff:,}")


def _unknown_events(names: Sequence[str], catalog: Catalog) -> Iterator[Violation]:
    declared = {event.name for event in catalog.event_types}
    for i, name in enumerate(names):
        if name not in declared:
            known = ", ".join(sorted(declared))
            yield Violation(
                f"event_types[{i}]", f"is not declared by the catalog; declared are: {known}"
            )


def _evaluation_message(evaluation: Evaluation | None) -> model_pb2.Evaluation | None:
    if evaluation is None:
        return None
    return model_pb2.Evaluation(
        holdout=_holdout_message(evaluation.holdout),
        user_count=evaluation.user_count,
        model=_metrics_messages(evaluation.model),
        popularity=_metrics_messages(evaluation.popularity),
    )


def _holdout_message(holdout: Holdout) -> model_pb2.Holdout:
    return model_pb2.Holdout(
        method=_METHOD_NUMBERS[holdout.method],
        fraction=holdout.fraction,
        cutoffs=holdout.cutoffs,
        seed=holdout.seed,
    )


def _metrics_messages(metrics: Iterable[RankingMetrics]) -> list[model_pb2.RankingMetrics]:
    return [
        model_pb2.RankingMetrics(
            cutoff=m.cutoff,
            recall=m.recall,
            ndcg=m.ndcg,
            mrr=m.mrr,
            hit_rate=m.hit_rate,
            coverage=m.coverage,
        )
        for m in metrics
    ]
