"""Searches for settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from milvine.api.convert import evaluations
from milvine.api.convert.models import Families, checked_config, config_message
from milvine.api.convert.values import check_count, display_name, duration, raise_all
from milvine.domain.catalog import Catalog
from milvine.domain.errors import InvalidArgument, Violation
from milvine.domain.ids import new_id
from milvine.domain.model import HoldoutMethod, ModelConfig, Setting
from milvine.domain.operation import Operation, OperationState
from milvine.domain.progress import TuneProgress, TuneStage
from milvine.domain.tuning import Choices, Numbers, Searched, Trial, TuneMetric, TunePlan, best_of
from milvine.jobs.payloads import FollowingTraining, TuneRequest, TuneResult, from_json
from milvine.v1 import model_service_pb2, tuning_pb2

DEFAULT_TRIALS, MAX_TRIALS = 20, 500
DEFAULT_CUTOFF = 20
MAX_SEARCHED = 20
MAX_CHOICES = 100
_Check: TypeAlias = Callable[[Mapping[str, Setting]], object]
"""Raises InvalidArgument for settings that the family does not take."""
_METRICS = {tuning_pb2.TuneMetric.Value(f"TUNE_METRIC_{m.name}"): m for m in TuneMetric}
_METRIC_NUMBERS = {m: n for n, m in _METRICS.items()}
_METRICS[tuning_pb2.TUNE_METRIC_UNSPECIFIED] = TuneMetric.NDCG
_STAGES = {s: model_service_pb2.TuneModelMetadata.Stage.Value(f"STAGE_{s}") for s in TuneStage}


def tuning(
    request: model_service_pb2.TuneModelRequest, catalog: Catalog, families: Families
) -> TuneRequest:
    """The search that a request asks for, checked against the catalog and the family."""
    raise_all(evaluations.unknown_events(request.event_types, catalog, "event_types"))
    config = checked_config(request.config, catalog, families)
    name = display_name(request.display_name, "display_name")
    if name and not request.train_best:
        raise InvalidArgument.at("display_name", "goes with train_best only")
    following = FollowingTraining(new_id("o"), new_id("m"), name) if request.train_best else None
    return TuneRequest(
        catalog.id,
        _plan(request, catalog, config, families),
        tuple(dict.fromkeys(request.event_types)),
        following,
    )


def metadata(operation: Operation) -> model_service_pb2.TuneModelMetadata:
    """How far a search has come."""
    request = from_json(TuneRequest, operation.request)
    message = model_service_pb2.TuneModelMetadata(
        catalog_id=operation.catalog_id, trial_count=request.plan.trial_count
    )
    if operation.progress:
        progress = from_json(TuneProgress, operation.progress)
        message.stage = _STAGES[progress.stage]
        done = operation.state is OperationState.SUCCEEDED
        message.progress = 1.0 if done else progress.progress
        message.trials.extend(map(_trial, progress.trials))
        if best := best_of(progress.trials):
            message.best_trial.CopyFrom(_trial(best))
    return message


def response(operation: Operation) -> tuning_pb2.Tuning:
    """What a search found."""
    request = from_json(TuneRequest, operation.request)
    result = from_json(TuneResult, operation.result)
    best = best_of(result.trials)
    following = request.following
    return tuning_pb2.Tuning(
        catalog_id=operation.catalog_id,
        best_config=config_message(result.best_config),
        best_trial=_trial(best) if best else None,
        trials=map(_trial, result.trials),
        metric=_METRIC_NUMBERS[request.plan.metric],
        cutoff=request.plan.cutoff,
        train_operation=f"operations/{following.operation_id}" if following else "",
    )


def _plan(
    request: model_service_pb2.TuneModelRequest,
    catalog: Catalog,
    config: ModelConfig,
    families: Families,
) -> TunePlan:
    if request.metric not in _METRICS:
        names = ", ".join(metric.name for metric in TuneMetric)
        raise InvalidArgument.at("metric", f"must be one of {names}")
    holdout = evaluations.holdout(request.holdout, catalog)
    if holdout.method is HoldoutMethod.NONE:
        raise InvalidArgument.at("holdout.method", "must hold something out: trials are measured")
    return TunePlan(
        config=_fixed(request, config),
        space=_space(request, families[config.family].config),
        trial_count=_count(request.trial_count, "trial_count", DEFAULT_TRIALS, MAX_TRIALS),
        metric=_METRICS[request.metric],
        cutoff=_count(request.cutoff, "cutoff", DEFAULT_CUTOFF, evaluations.MAX_CUTOFF),
        holdout=holdout,
        seed=request.seed,
    )


def _fixed(request: model_service_pb2.TuneModelRequest, config: ModelConfig) -> ModelConfig:
    """The family with the settings alone that the request gives."""
    given = {field.name for field, _ in getattr(request.config, config.family).ListFields()}
    return ModelConfig(config.family, {n: v for n, v in config.settings.items() if n in given})


def _count(given: int, path: str, default: int, most: int) -> int:
    if not 0 <= given <= most:
        raise InvalidArgument.at(path, f"must be 1 to {most:,}, or 0 for {default}, is {given:,}")
    return given or default


def _space(request: model_service_pb2.TuneModelRequest, check: _Check) -> Mapping[str, Searched]:
    check_count(len(request.space), "space", least=1, most=MAX_SEARCHED)
    raise_all(_faults(request, check))
    return {searched.name: _searched(searched) for searched in request.space}


def _faults(request: model_service_pb2.TuneModelRequest, check: _Check) -> Iterator[Violation]:
    family = request.config.WhichOneof("family") or ""
    known = {field.name for field, _ in getattr(request.config, family).ListFields()}
    for i, searched in enumerate(request.space):
        path = f"space[{i}]"
        if searched.name in known:
            yield Violation(f"{path}.name", f"{searched.name!r} is fixed or searched for already")
        known.add(searched.name)
        yield from _value_faults(searched, path)
        for place, value in _bounds(searched, path):
            if fault := _setting_fault(check, searched.name, value):
                is_unknown = "is not a setting" in fault
                yield Violation(f"{path}.name" if is_unknown else place, fault)
                break


def _value_faults(searched: tuning_pb2.SearchedSetting, path: str) -> Iterator[Violation]:
    match searched.WhichOneof("values"):
        case "range":
            numbers = searched.range
            if not numbers.low < numbers.high:
                yield Violation(f"{path}.range.high", f"must be over low, which is {numbers.low:g}")
            if numbers.log_scale and not numbers.low > 0:
                yield Violation(f"{path}.range.low", "must be over 0 on a log scale")
        case "choices":
            values = searched.choices.values
            if not 1 <= len(values) <= MAX_CHOICES or len(set(values)) < len(values):
                rule = f"must be 1 to {MAX_CHOICES} different values"
                yield Violation(f"{path}.choices.values", rule)
        case _:
            yield Violation(path, "must set a range or choices")


def _bounds(searched: tuning_pb2.SearchedSetting, path: str) -> Iterable[tuple[str, float]]:
    """The values whose places in the setting's own range tell those of all."""
    if searched.WhichOneof("values") == "range":
        low, high = searched.range.low, searched.range.high
        return ((f"{path}.range.low", low), (f"{path}.range.high", high))
    values = searched.choices.values
    return [(f"{path}.choices.values[{i}]", value) for i, value in enumerate(values)]


def _setting_fault(check: _Check, name: str, value: float) -> str | None:
    """What the family says against a value of a setting; None where it has nothing against it."""
    try:
        check({name: value})
    except InvalidArgument as error:
        faults = (v.description for v in error.violations if v.field.endswith(f".{name}"))
        return next(faults, None)
    return None


def _searched(searched: tuning_pb2.SearchedSetting) -> Searched:
    if searched.WhichOneof("values") == "choices":
        return Choices(tuple(searched.choices.values))
    numbers = searched.range
    return Numbers(numbers.low, numbers.high, numbers.log_scale)


def _trial(trial: Trial) -> tuning_pb2.Trial:
    return tuning_pb2.Trial(
        number=trial.number,
        settings={name: float(value) for name, value in trial.settings.items()},
        value=trial.value,
        failure=trial.failure,
        duration=duration(trial.seconds),
    )
