"""Evaluations: what is held out, and how well it was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from milvine.api.convert.values import check_count, moment, raise_all, timestamp
from milvine.domain.catalog import Catalog
from milvine.domain.errors import FailedPrecondition, InvalidArgument, Reason, Violation
from milvine.domain.model import (
    Evaluation,
    Holdout,
    HoldoutMethod,
    LiveEvaluation,
    Model,
    RankingMetrics,
    Segment,
    SegmentEvaluation,
)
from milvine.domain.release import Release, ReleaseState
from milvine.jobs.payloads import EvaluateRequest
from milvine.v1 import model_pb2, model_service_pb2

MAX_CUTOFF = 1_000
MAX_CUTOFFS = 10
_METHODS = {model_pb2.Holdout.Method.Value(f"METHOD_{m}"): m for m in HoldoutMethod}
_METHOD_NUMBERS = {m: n for n, m in _METHODS.items()}
_METHODS[model_pb2.Holdout.METHOD_UNSPECIFIED] = HoldoutMethod.LATEST
_BY_USER = (HoldoutMethod.LATEST, HoldoutMethod.RANDOM, HoldoutMethod.NONE)
_SEGMENTS = {
    segment: model_pb2.SegmentEvaluation.Segment.Value(f"SEGMENT_{segment}") for segment in Segment
}


def holdout(message: model_pb2.Holdout, catalog: Catalog) -> Holdout:
    """How to hold out, checked against the catalog."""
    if message.method not in _METHODS:
        raise InvalidArgument.at("holdout.method", f"must be one of {', '.join(HoldoutMethod)}")
    fraction = message.fraction if message.HasField("fraction") else None
    if fraction is not None and not 0 < fraction < 1:
        raise InvalidArgument.at("holdout.fraction", "must be over 0 and under 1")
    check_count(len(message.cutoffs), "holdout.cutoffs", least=0, most=MAX_CUTOFFS)
    raise_all(_bad_cutoffs(message.cutoffs))
    method = _METHODS[message.method]
    raise_all(_misplaced(message, method))
    raise_all(unknown_events(message.event_types, catalog, "holdout.event_types"))
    starts = message.HasField("start_time")
    return Holdout(
        method,
        fraction,
        tuple(sorted(set(message.cutoffs))) or Holdout().cutoffs,
        message.seed,
        moment(message.start_time, "holdout.start_time") if starts else None,
        tuple(dict.fromkeys(message.event_types)),
    )


def measuring(
    request: model_service_pb2.EvaluateModelRequest,
    model: Model,
    catalog: Catalog,
    release: Release | None,
) -> EvaluateRequest:
    """The evaluation that a request asks for, checked against the model and its release."""
    asked = holdout(request.holdout, catalog)
    if asked.method is HoldoutMethod.NONE:
        raise InvalidArgument.at("holdout.method", "must hold something out, is NONE")
    if release is not None:
        _check_release(release, model, asked)
    return EvaluateRequest(model.catalog_id, model.id, asked, release.id if release else "")


def _check_release(release: Release, model: Model, asked: Holdout) -> None:
    if release.model_id != model.id:
        raise InvalidArgument.at("release_id", f"must be a release of the model {model.id!r}")
    if release.state is not ReleaseState.READY:
        raise _wrong_state(f"the release {release.id!r} is {release.state}, not READY", release)
    if model.has_learned(asked):
        raise _wrong_state(
            f"the model {model.id!r} may have learned from what would be held out, so its index "
            "can't be measured; hold out what came AFTER its latest_event_time, or GIVEN event "
            "types that it did not learn from",
            release,
        )


def _wrong_state(message: str, release: Release) -> FailedPrecondition:
    return FailedPrecondition(message, Reason.WRONG_STATE, {"release_id": release.id})


def evaluation_message(evaluation: Evaluation) -> model_pb2.Evaluation:
    """The message of an evaluation."""
    return model_pb2.Evaluation(
        holdout=_holdout_message(evaluation.holdout),
        user_count=evaluation.user_count,
        model=_metrics_messages(evaluation.model),
        popularity=_metrics_messages(evaluation.popularity),
        segments=map(_segment_message, evaluation.segments),
        held_out_count=evaluation.held_out_count,
        item_count=evaluation.item_count,
        held_out_fingerprint=evaluation.held_out_fingerprint,
        fitted_anew=evaluation.fitted_anew,
        live=_live_message(evaluation.live),
    )


def unknown_events(names: Sequence[str], catalog: Catalog, path: str) -> Iterator[Violation]:
    """The names at a path that are not event types of the catalog."""
    declared = {event.name for event in catalog.event_types}
    for i, name in enumerate(names):
        if name not in declared:
            known = ", ".join(sorted(declared))
            yield Violation(
                f"{path}[{i}]", f"is not declared by the catalog; declared are: {known}"
            )


def _misplaced(message: model_pb2.Holdout, method: HoldoutMethod) -> Iterator[Violation]:
    """The fields that the method lacks, or does not look at."""
    for name, owner, is_given in (
        ("start_time", HoldoutMethod.AFTER, message.HasField("start_time")),
        ("event_types", HoldoutMethod.GIVEN, bool(message.event_types)),
    ):
        if is_given != (method is owner):
            rule = "must be absent" if is_given else "must be given"
            yield Violation(f"holdout.{name}", f"{rule} with the method {method}")
    if message.HasField("fraction") and method not in _BY_USER:
        yield Violation("holdout.fraction", f"must be absent with the method {method}")


def _bad_cutoffs(cutoffs: Sequence[int]) -> Iterator[Violation]:
    for i, cutoff in enumerate(cutoffs):
        if not 1 <= cutoff <= MAX_CUTOFF:
            yield Violation(f"holdout.cutoffs[{i}]", f"must be 1 to {MAX_CUTOFF:,}, is {cutoff:,}")


def _holdout_message(holdout: Holdout) -> model_pb2.Holdout:
    return model_pb2.Holdout(
        method=_METHOD_NUMBERS[holdout.method],
        fraction=holdout.fraction,
        cutoffs=holdout.cutoffs,
        seed=holdout.seed,
        start_time=timestamp(holdout.start_time),
        event_types=holdout.event_types,
    )


def _live_message(live: LiveEvaluation | None) -> model_pb2.LiveEvaluation | None:
    if live is None:
        return None
    return model_pb2.LiveEvaluation(
        release_id=live.release_id,
        index_recall=live.index_recall,
        metrics=_metrics_messages(live.metrics),
    )


def _segment_message(segment: SegmentEvaluation) -> model_pb2.SegmentEvaluation:
    return model_pb2.SegmentEvaluation(
        segment=_SEGMENTS[segment.segment],
        user_count=segment.user_count,
        held_out_count=segment.held_out_count,
        model=_metrics_messages(segment.model),
        popularity=_metrics_messages(segment.popularity),
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
            novelty=m.novelty,
        )
        for m in metrics
    ]
