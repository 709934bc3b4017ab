"""Training a model from a table of interactions to a stored artifact."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from milvine.artifacts import Artifacts, CheckpointFile
from milvine.domain.catalog import Catalog
from milvine.domain.entity import from_micros
from milvine.domain.errors import Cancelled
from milvine.domain.model import (
    EpochReport,
    Evaluation,
    Holdout,
    HoldoutMethod,
    Model,
    ModelConfig,
)
from milvine.domain.progress import TrainProgress, TrainStage
from milvine.models.base import Dataset, Fitted, IsCancelled, Run
from milvine.models.families import family_of, filled
from milvine.models.serving import POPULARITY
from milvine.models.texts import TextReader
from milvine.training.content import ItemTexts, Learned, LearnedContent, learn_content
from milvine.training.dataset import ReadFields, dataset_of, fingerprint, popularity
from milvine.training.evaluation import evaluate
from milvine.training.holdout import part, with_history
from milvine.training.recommender import Recommender


def train(  # noqa: PLR0913 - each is one thing that a training needs
    table: pa.Table,
    catalog: Catalog,
    config: ModelConfig,
    holdout: Holdout,
    *,
    model_id: str,
    display_name: str,
    event_types: tuple[str, ...] = (),
    artifacts: Artifacts,
    device: str,
    report: Callable[[TrainProgress], None],
    cancelled: IsCancelled,
    read_fields: ReadFields | None = None,
    reader: TextReader | None = None,
    texts: ItemTexts | None = None,
    checkpoints: str = "",
    process_count: int = 1,
) -> Model:
    """Train a model, measure it on what is held out, train it again on everything and store it.

    Args:
        table: Columns of `domain.interaction.INTERACTIONS`; what GIVEN holds out, too.
        catalog: Declares the event types.
        config: The family and its settings; what is absent takes its default.
        holdout: What measures the model; with NONE it is not measured.
        model_id: The id of the model and its artifact.
        display_name: A name for people.
        event_types: What the model learns from; empty for all.
        artifacts: Where the artifact goes.
        device: The torch device that fits.
        report: Told of each step and each epoch.
        cancelled: Asked often enough that a cancel takes effect within a second.
        read_fields: Reads items and users, for families that learn from their fields; None: there
            is nothing to read.
        reader: Reads texts, for families that learn from them; None: they are left out.
        texts: What items say; with it, the model learns where items without interactions belong.
        checkpoints: The folder among the artifacts where its fits keep their state, and go on from
            what they find; empty: nowhere. Whoever gives it removes it.
        process_count: The processes that fit it together; more than 1 for families that are
            `is_parallel`.

    Returns:
        The model. Where its `divergence` is not empty, it has the best weights of a fit whose loss
        was finite no longer, which need not have had everything.

    Raises:
        InvalidArgument: When a setting is out of its range, or names a field that is not declared.
        FailedPrecondition: When nothing teaches the family, or its loss is no longer finite and
            no weights are kept, or there are fewer GPUs than processes.
        Aborted: When one of several processes ended.
        Cancelled: When `cancelled` says so; nothing is stored then.
        Unavailable: When the artifacts can't be written.
    """
    config = filled(config)
    keeper = _Keeper(artifacts, checkpoints, config, device) if checkpoints else None
    work = _Work(config, holdout, device, process_count, report, cancelled, keeper)
    report(TrainProgress(TrainStage.READING, 0.0))
    dataset = dataset_of(table, catalog, config, read_fields, reader)
    is_measured = holdout.method is not HoldoutMethod.NONE
    measured = work.measure(dataset, table, catalog) if is_measured else None
    if measured is not None and measured.fit.divergence:
        dataset, fit = measured.dataset, measured.fit
    else:
        if event_types and holdout.method is HoldoutMethod.GIVEN:
            taught = pc.is_in(table["event_type"], value_set=pa.array(event_types, pa.string()))
            dataset = dataset_of(table.filter(taught), catalog, config, read_fields, reader)
        fit = work.fit(dataset, TrainStage.FITTING)
    work.step(TrainStage.SAVING)
    content = work.learn_content(texts, dataset, fit.fitted) if texts else None
    model = Model(
        id=model_id,
        catalog_id=catalog.id,
        config=config,
        user_count=len(dataset.users),
        item_count=len(dataset.items),
        pair_count=len(dataset.histories.items),
        dimension=fit.fitted.item_vectors.shape[1],
        data_fingerprint=fingerprint(dataset),
        train_seconds=fit.seconds,
        epochs=fit.fitted.epochs,
        holdout_epochs=measured.fit.fitted.epochs if measured else (),
        evaluation=measured.evaluation if measured else None,
        divergence=fit.divergence,
        event_types=event_types,
        display_name=display_name,
        create_time=datetime.now(UTC),
        content=content.source if content else None,
        latest_event_time=from_micros(int(dataset.histories.times.max())),
    )
    tensors = {**fit.fitted.tensors, POPULARITY: popularity(dataset)}
    tensors |= content.tensors if content else {}
    artifacts.save(model_id, tensors, dataset.items.ids, _document(model))
    return model


@dataclass(frozen=True, slots=True)
class _Keeper:
    """Where the fits of a training keep their checkpoints."""

    artifacts: Artifacts
    folder: str
    config: ModelConfig
    device: str

    def checkpoint(self, dataset: Dataset, stage: TrainStage) -> CheckpointFile:
        """The checkpoint of a step; it goes with the data, the settings and the kind of device."""
        device, _, _ = self.device.partition(":")
        parts = [fingerprint(dataset), asdict(self.config), device]
        stamp = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self.artifacts.checkpoint(self.folder, stage.lower(), stamp=stamp)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A fit and how long it took."""

    fitted: Fitted
    seconds: float

    @property
    def divergence(self) -> str:
        return self.fitted.divergence.message if self.fitted.divergence else ""


@dataclass(frozen=True, slots=True)
class _Measured:
    """A fit on a part of the data and what it was worth."""

    dataset: Dataset
    fit: _Fit
    evaluation: Evaluation | None


@dataclass(frozen=True, slots=True)
class _Work:
    """The steps of one training."""

    config: ModelConfig
    holdout: Holdout
    device: str
    process_count: int
    report: Callable[[TrainProgress], None]
    cancelled: IsCancelled
    keeper: _Keeper | None
    holdout_epochs: list[EpochReport] = field(default_factory=list)
    epochs: list[EpochReport] = field(default_factory=list)

    def measure(self, dataset: Dataset, events: pa.Table, catalog: Catalog) -> _Measured:
        """Fit on what is not held out and measure on what is."""
        family = family_of(self.config)
        train, held_out = part(dataset, events, catalog, family.learns_from, self.holdout)
        learned = with_history(train)
        fit = self.fit(learned, TrainStage.FITTING_HOLDOUT)
        self.step(TrainStage.EVALUATING)
        evaluation = evaluate(
            train,
            held_out,
            Recommender.of_fit(family, family.config(self.config.settings), fit.fitted),
            holdout=self.holdout,
            device=self.device,
            cancelled=self.cancelled,
        )
        return _Measured(learned, fit, evaluation)

    def fit(self, dataset: Dataset, stage: TrainStage) -> _Fit:
        """Fit and report each epoch."""
        self.step(stage)
        family = family_of(self.config)
        heard = self.epochs if stage is TrainStage.FITTING else self.holdout_epochs

        def on_epoch(epoch: EpochReport) -> None:
            heard.append(epoch)
            self.tell(stage, epoch.epoch / epoch.epoch_count)

        checkpoint = self.keeper.checkpoint(dataset, stage) if self.keeper else None
        run = Run(self.device, on_epoch, self.cancelled, checkpoint, self.process_count)
        start = time.perf_counter()
        fitted = family.fit(dataset, family.config(self.config.settings), run)
        return _Fit(fitted, time.perf_counter() - start)

    def learn_content(
        self, texts: ItemTexts, dataset: Dataset, fitted: Fitted
    ) -> LearnedContent | None:
        """Learn where items belong by what they say."""
        family = family_of(self.config)
        encoder = family.encoder(family.config(self.config.settings), fitted.tensors)
        return learn_content(
            texts,
            Learned(dataset.items, fitted.item_vectors, encoder.taste_dimension),
            report=lambda share: self.tell(TrainStage.SAVING, share),
            cancelled=self.cancelled,
        )

    def step(self, stage: TrainStage) -> None:
        """Report that a step begins, unless the training is cancelled."""
        if self.cancelled():
            raise Cancelled
        self.tell(stage, 0.0)

    def tell(self, stage: TrainStage, share: float) -> None:
        """Report which share of a step is done, and every epoch so far."""
        spans = _MEASURED if self.holdout.method is not HoldoutMethod.NONE else _UNMEASURED
        low, high = spans[stage]
        progress = low + share * (high - low)
        self.report(TrainProgress(stage, progress, tuple(self.holdout_epochs), tuple(self.epochs)))


_MEASURED = {
    TrainStage.FITTING_HOLDOUT: (0.05, 0.45),
    TrainStage.EVALUATING: (0.45, 0.55),
    TrainStage.FITTING: (0.55, 0.95),
    TrainStage.SAVING: (0.95, 1.0),
}
_UNMEASURED = {TrainStage.FITTING: (0.05, 0.95), TrainStage.SAVING: (0.95, 1.0)}


def _document(model: Model) -> dict[str, object]:
    document: dict[str, object] = orjson.loads(orjson.dumps(model))
    return document
