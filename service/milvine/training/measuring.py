"""Measuring a model that was trained before, as it is or by fitting its settings anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from milvine.domain.catalog import Catalog
from milvine.domain.errors import Cancelled, FailedPrecondition, Reason
from milvine.domain.model import EpochReport, Evaluation, Holdout, Model, ModelConfig
from milvine.domain.progress import EvaluateProgress, EvaluateStage
from milvine.models.base import Dataset, IsCancelled, Run
from milvine.models.families import family_of
from milvine.models.serving import ModelStore, load_serving_model
from milvine.models.texts import TextReader
from milvine.models.vocabulary import Vocabulary
from milvine.text import same_encoder
from milvine.training.dataset import ReadFields, build, dataset_of, with_user_features
from milvine.training.evaluation import evaluate
from milvine.training.holdout import part, with_history
from milvine.training.live import LiveIndex
from milvine.training.recommender import Recommender

_READ, _FITTED = 0.05, 0.8
"""The shares of the work that are done when fitting begins and ends."""


@dataclass(frozen=True, slots=True)
class Measuring:
    """Where a model is measured, who hears of it and who may stop it."""

    artifacts: ModelStore
    device: str
    report: Callable[[EvaluateProgress], None]
    cancelled: IsCancelled
    """Asked often enough that a cancel takes effect within a second."""
    read_fields: ReadFields | None = None
    """Reads users and items, for families that learn from their fields; None: there is nothing."""
    reader: TextReader | None = None
    """Reads what they say; None: nothing does."""


def measure(
    events: pa.Table,
    catalog: Catalog,
    model: Model,
    holdout: Holdout,
    measuring: Measuring,
    *,
    live: LiveIndex | None = None,
) -> Evaluation:
    """Measure a model by a holdout.

    A model that has not learned from what is held out is measured as it is, its users encoded from
    what is not. Of any other, the settings are fitted anew on that.

    Args:
        events: Columns of `domain.interaction.INTERACTIONS`, of the event types that the model
            learns from and of those that are held out.
        catalog: Declares the event types.
        model: The model.
        holdout: What is held out; not NONE.
        measuring: Where it is measured.
        live: The index of a release of the model, asked for the same lists; of a model that is
            measured as it is.

    Raises:
        FailedPrecondition: Nothing is held out, nothing is left, or the loss of a fit is no longer
            finite.
        DataLoss: The model's artifact is missing or damaged.
        Cancelled: When `measuring.cancelled` says so.
    """
    measuring.report(EvaluateProgress(EvaluateStage.READING, 0.0))
    feedback = family_of(model.config).learns_from
    fits_anew = model.has_learned(holdout)
    if fits_anew:
        dataset = dataset_of(events, catalog, model.config, measuring.read_fields, measuring.reader)
        train, held_out = part(dataset, events, catalog, feedback, holdout)
        recommender = _fitted(with_history(train), model.config, measuring)
    else:
        served = load_serving_model(measuring.artifacts, model, same_encoder)
        recommender = Recommender.of_served(served)
        dataset = _led_by(served.items, build(events, catalog, feedback))
        if measuring.read_fields is not None:
            dataset = with_user_features(dataset, served.user_encoding, measuring.read_fields)
        train, held_out = part(dataset, events, catalog, feedback, holdout)
    measuring.report(EvaluateProgress(EvaluateStage.EVALUATING, _FITTED))
    found = evaluate(
        train,
        held_out,
        recommender,
        holdout=holdout,
        device=measuring.device,
        cancelled=measuring.cancelled,
        live=live,
    )
    if found is None:
        raise _nothing_held_out(catalog)
    return replace(found, fitted_anew=fits_anew)


def _fitted(dataset: Dataset, config: ModelConfig, measuring: Measuring) -> Recommender:
    """What the settings give when they are fitted."""
    family = family_of(config)
    epochs: list[EpochReport] = []

    def on_epoch(epoch: EpochReport) -> None:
        epochs.append(epoch)
        share = _READ + (_FITTED - _READ) * epoch.epoch / epoch.epoch_count
        measuring.report(EvaluateProgress(EvaluateStage.FITTING, share, tuple(epochs)))

    if measuring.cancelled():
        raise Cancelled
    measuring.report(EvaluateProgress(EvaluateStage.FITTING, _READ))
    settings = family.config(config.settings)
    run = Run(measuring.device, on_epoch, measuring.cancelled)
    return Recommender.of_fit(family, settings, family.fit(dataset, settings, run))


def _led_by(items: Vocabulary, dataset: Dataset) -> Dataset:
    """The data set with a model's items first, by the model's rows, then those it does not know."""
    known = pc.is_in(dataset.items.ids, value_set=items.ids)
    unknown = dataset.items.ids.filter(pc.invert(known))
    ids = Vocabulary(pa.concat_arrays([items.ids, unknown]))
    histories = dataset.histories
    rows = ids.rows(dataset.items.ids)[histories.items]
    return replace(dataset, items=ids, histories=replace(histories, items=rows))


def _nothing_held_out(catalog: Catalog) -> FailedPrecondition:
    return FailedPrecondition(
        f"nothing is held out of catalog {catalog.id!r} that its users did not have before; "
        "record what they did since, or hold out otherwise",
        Reason.NO_TRAINING_DATA,
        {"catalog_id": catalog.id},
    )
