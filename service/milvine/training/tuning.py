"""Searching for the settings of a family that do best on what is held out.

The settings of a trial are proposed by a tree-structured Parzen estimator (Bergstra, Bardenet,
Bengio and Kégl 2011, "Algorithms for hyper-parameter optimization", section 4; Optuna's). Each
proposal depends on the seed, its number and the trials before it alone, so a search that stops and
goes on finds what one that never stopped finds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna
import pyarrow as pa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from milvine.domain.catalog import Catalog
from milvine.domain.errors import (
    Cancelled,
    FailedPrecondition,
    InvalidArgument,
    LimitReached,
    Reason,
)
from milvine.domain.model import EpochReport, ModelConfig, Setting
from milvine.domain.progress import TuneProgress, TuneStage
from milvine.domain.tuning import Choices, Searched, Trial, TunePlan, best_of
from milvine.models.base import Dataset, Histories, IsCancelled, Run
from milvine.models.families import family_of, filled
from milvine.models.texts import TextReader
from milvine.training.dataset import ReadFields, dataset_of
from milvine.training.evaluation import evaluate
from milvine.training.holdout import part, with_history
from milvine.training.memory import memory_told
from milvine.training.recommender import Recommender

_READ = 0.02
"""The share of the work that is done when the first trial begins."""


def tune(
    events: pa.Table,
    catalog: Catalog,
    plan: TunePlan,
    run: TuneRun,
    done: Sequence[Trial] = (),
) -> tuple[Trial, ...]:
    """Try settings, and measure each by a fit on what is not held out.

    The first trial takes the defaults where they lie in the space, so that the best one is at
    least as good. A trial that fails says why and counts as tried.

    Args:
        events: Columns of `domain.interaction.INTERACTIONS`.
        catalog: Declares the event types.
        plan: What to search.
        run: Where fits run, who hears of them and who may stop them.
        done: Trials of the same search that have ended already.

    Returns:
        All trials in order, at least one with a value.

    Raises:
        FailedPrecondition: When nothing teaches the family or can be held out, or every trial
            failed.
        Cancelled: When `run.cancelled` says so.
    """
    run.report(TuneProgress(TuneStage.READING, 0.0, tuple(done)))
    feedback = family_of(plan.config).learns_from
    dataset = dataset_of(events, catalog, plan.config, run.read_fields, run.reader)
    bench = _Bench(plan, *part(dataset, events, catalog, feedback, plan.holdout), run)
    if not len(bench.held_out.items):
        raise _nothing_held_out(catalog)
    trials = tuple(done)
    while len(trials) < plan.trial_count:
        settings = proposed(plan, trials)
        trials = (*trials, bench.tried(settings, trials))
        bench.tell(trials)
    if best_of(trials) is None:
        raise _all_failed(trials)
    return trials


@dataclass(frozen=True, slots=True)
class TuneRun:
    """Where the fits of a search run, who hears of them and who may stop them."""

    device: str
    report: Callable[[TuneProgress], None]
    cancelled: IsCancelled
    """Asked often enough that a cancel takes effect within a second."""
    read_fields: ReadFields | None = None
    """Reads items and users, for families that learn from their fields; None: there is nothing."""
    reader: TextReader | None = None
    """Reads texts, for families that learn from them; None: they are left out."""


def proposed(plan: TunePlan, trials: Sequence[Trial]) -> Mapping[str, Setting]:
    """The settings to try after some trials."""
    space = {name: _distribution(plan, name, of) for name, of in plan.space.items()}
    defaults = {name: _defaults(plan)[name] for name in space}
    if not trials and all(_holds(plan.space[name], value) for name, value in defaults.items()):
        return defaults
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=_seed_of_trial(plan.seed, len(trials)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in trials:
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if trial.value is None else TrialState.COMPLETE,
                value=trial.value,
                params=dict(trial.settings),
                distributions=space,
            )
        )
    asked: dict[str, Setting] = study.ask(space).params
    return asked


@dataclass(frozen=True, slots=True)
class _Bench:
    """What every trial of a search is measured on."""

    plan: TunePlan
    train: Dataset
    held_out: Histories
    run: TuneRun

    def tried(self, settings: Mapping[str, Setting], before: tuple[Trial, ...]) -> Trial:
        """The trial of some settings; what was tried before is not fitted again."""
        trial = Trial(len(before) + 1, settings, 0.0)
        same = next((each for each in before if dict(each.settings) == dict(settings)), None)
        if same is not None:
            return replace(trial, value=same.value, failure=same.failure)
        start = time.perf_counter()
        try:
            trial = replace(trial, value=self._value(settings, before))
        except (FailedPrecondition, InvalidArgument, LimitReached) as failure:
            trial = replace(trial, failure=failure.message)
        return replace(trial, seconds=time.perf_counter() - start)

    def tell(self, trials: tuple[Trial, ...], share_of_next: float = 0.0) -> None:
        """Report the trials so far."""
        share = min(1.0, (len(trials) + share_of_next) / self.plan.trial_count)
        self.run.report(TuneProgress(TuneStage.TRYING, _READ + (1 - _READ) * share, trials))

    def _value(self, settings: Mapping[str, Setting], before: tuple[Trial, ...]) -> float:
        if self.run.cancelled():
            raise Cancelled

        def on_epoch(epoch: EpochReport) -> None:
            self.tell(before, epoch.epoch / epoch.epoch_count)

        family = family_of(self.plan.config)
        settings = {**self.plan.config.settings, **settings}
        config = family.config(settings)
        run = Run(self.run.device, on_epoch, self.run.cancelled)
        with memory_told(replace(self.plan.config, settings=settings)):
            fitted = family.fit(with_history(self.train), config, run)
        if fitted.divergence:
            raise fitted.divergence
        evaluation = evaluate(
            self.train,
            self.held_out,
            Recommender.of_fit(family, config, fitted),
            holdout=replace(self.plan.holdout, cutoffs=(self.plan.cutoff,)),
            device=self.run.device,
            cancelled=self.run.cancelled,
        )
        if evaluation is None:
            raise ValueError("nothing is held out")
        value: float = getattr(evaluation.model[0], self.plan.metric)
        return value


def best_config(plan: TunePlan, best: Trial) -> ModelConfig:
    """The config of a trial, with defaults filled in."""
    return filled(replace(plan.config, settings={**plan.config.settings, **best.settings}))


def _defaults(plan: TunePlan) -> Mapping[str, Setting]:
    return filled(replace(plan.config, settings={})).settings


def _holds(searched: Searched, value: Setting) -> bool:
    if isinstance(searched, Choices):
        return value in searched.values
    return searched.low <= float(value) <= searched.high


def _distribution(plan: TunePlan, name: str, searched: Searched) -> BaseDistribution:
    """How Optuna knows the values of a setting; whole numbers are told by the default."""
    is_whole = isinstance(_defaults(plan)[name], int)
    if isinstance(searched, Choices):
        return CategoricalDistribution([int(v) if is_whole else v for v in searched.values])
    low, high, is_log = searched.low, searched.high, searched.is_log
    if is_whole:
        return IntDistribution(int(low), int(high), log=is_log)
    return FloatDistribution(low, high, log=is_log)


def _seed_of_trial(seed: int, number: int) -> int:
    """A seed of 32 bits; neighbouring seeds and trials share nothing."""
    words = np.random.SeedSequence([abs(seed), int(seed < 0), number]).generate_state(1)
    return int(words[0])


def _nothing_held_out(catalog: Catalog) -> FailedPrecondition:
    return FailedPrecondition(
        f"nothing can be held out of the catalog {catalog.id!r}: no user has two items that teach; "
        "record more interactions, or hold out otherwise",
        Reason.NO_TRAINING_DATA,
        {"catalog_id": catalog.id},
    )


def _all_failed(trials: Sequence[Trial]) -> FailedPrecondition:
    return FailedPrecondition(
        f"none of the {len(trials)} trials gave a model; the last one said: {trials[-1].failure}",
        Reason.ALL_TRIALS_FAILED,
    )
