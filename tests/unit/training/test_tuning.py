"""Searching for settings."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from milvine.domain.errors import Cancelled, FailedPrecondition, Reason
from milvine.domain.model import Holdout, ModelConfig
from milvine.domain.progress import TuneStage
from milvine.domain.tuning import Choices, Numbers, Trial, TuneMetric, TunePlan, best_of
from milvine.training.tuning import TuneRun, best_config, proposed, tune
from tests.unit.models.worlds import CATALOG, checkerboard, low_rank, table

PLAN = TunePlan(
    ModelConfig("als", {"epochs": 2}),
    {
        "embedding_size": Numbers(2, 8, is_log=True),
        "unobserved_weight": Numbers(0.01, 0.2, is_log=True),
        "regularization": Choices((0.001, 0.003, 0.1)),
    },
    trial_count=6,
    metric=TuneMetric.RECALL,
    cutoff=5,
    holdout=Holdout(),
)


def _tune(plan=PLAN, *, rows=None, done=(), report=lambda _: None, cancelled=lambda: False):
    run = TuneRun("cpu", report, cancelled)
    return tune(table(checkerboard(16) if rows is None else rows), CATALOG, plan, run, done)


def _told(trials):
    return [(trial.number, dict(trial.settings), trial.value, trial.failure) for trial in trials]


def test_every_trial_is_told():
    """All trials are there in order, each with settings of the space, and the best is the best."""
    trials = _tune()
    assert [trial.number for trial in trials] == [1, 2, 3, 4, 5, 6]
    for trial in trials:
        assert isinstance(trial.settings["embedding_size"], int)
        assert 2 <= trial.settings["embedding_size"] <= 8
        assert 0.01 <= trial.settings["unobserved_weight"] <= 0.2
        assert trial.settings["regularization"] in (0.001, 0.003, 0.1)
        assert 0 <= trial.value <= 1
        assert trial.seconds > 0
    best = best_of(trials)
    assert best.value == max(trial.value for trial in trials)
    config = best_config(PLAN, best)
    assert config.settings["epochs"] == 2
    assert config.settings.items() >= dict(best.settings).items()
    assert config.settings["confidence_scale"] == 0


def test_first_trial_takes_the_defaults_where_they_lie_in_the_space():
    """Else it takes what the search proposes."""
    inside = {"embedding_size": Numbers(8, 128), "unobserved_weight": Choices((0.1, 0.5))}
    assert proposed(replace(PLAN, space=inside), ()) == {
        "embedding_size": 64,
        "unobserved_weight": 0.1,
    }
    assert proposed(PLAN, ())["embedding_size"] <= 8


def test_a_search_that_goes_on_tries_what_a_straight_one_tries():
    """After any number of trials, the same follow; another seed tries others."""
    straight = _tune()
    for count in (1, 4):
        assert _told(_tune(done=straight[:count])) == _told(straight)
    assert _told(_tune(replace(PLAN, seed=1))) != _told(straight)


def test_the_search_learns_from_its_trials():
    """Where the metric is a known function of a setting, later proposals come near its top."""
    plan = replace(PLAN, space={"unobserved_weight": Numbers(0.001, 10, is_log=True)})
    trials: tuple[Trial, ...] = ()
    for number in range(1, 41):
        settings = proposed(plan, trials)
        value = -abs(settings["unobserved_weight"] - 2.0)
        trials = (*trials, Trial(number, settings, 0.1, value))
    missed = [abs(trial.settings["unobserved_weight"] - 2.0) for trial in trials]
    assert np.median(missed[25:]) < 0.75 * np.median(missed[:10])
    assert abs(best_of(trials).settings["unobserved_weight"] - 2.0) < 0.3


def test_progress_tells_the_trials_so_far():
    """The share grows to 1, and each report has all trials that have ended."""
    told = []
    trials = _tune(report=told.append)
    assert told[0].stage is TuneStage.READING
    assert [t.progress for t in told] == sorted(t.progress for t in told)
    assert told[-1].progress == 1.0
    assert told[-1].trials == trials
    assert any(len(t.trials) == 2 and t.progress % 1 for t in told)


def test_a_trial_that_fails_says_why_and_the_search_goes_on():
    """Settings that can't go together are a failed trial."""
    space = {"embedding_size": Choices((7, 8)), "heads": Choices((2,))}
    config = ModelConfig("sasrec", {"epochs": 1})
    trials = _tune(replace(PLAN, config=config, space=space, trial_count=8))
    failed = [trial for trial in trials if trial.value is None]
    assert failed
    assert all("must divide embedding_size, which is 7" in trial.failure for trial in failed)
    assert best_of(trials).settings["embedding_size"] == 8


def test_settings_that_were_tried_are_not_fitted_again():
    """A trial of the same settings has the same value, and takes no time."""
    trials = _tune(replace(PLAN, space={"embedding_size": Choices((2, 4))}))
    values = {trial.settings["embedding_size"]: trial.value for trial in trials}
    assert all(trial.value == values[trial.settings["embedding_size"]] for trial in trials)
    assert sum(trial.seconds > 0 for trial in trials) == 2


def test_a_search_whose_trials_all_fail_fails():
    """It says what the last one said."""
    plan = replace(PLAN, space={"regularization": Choices((1e39,))}, trial_count=2)
    with pytest.raises(FailedPrecondition, match=r"none of the 2 trials.*diverged") as caught:
        _tune(plan)
    assert caught.value.reason is Reason.ALL_TRIALS_FAILED


def test_a_search_needs_something_to_hold_out():
    """Users with a single item give none."""
    with pytest.raises(FailedPrecondition, match="nothing can be held out") as caught:
        _tune(rows=[(f"u{n}", "i", "buy", 1.0, n) for n in range(9)])
    assert caught.value.reason is Reason.NO_TRAINING_DATA


def test_cancel_takes_effect_within_a_second():
    """A search that is cancelled in a fit ends within a second of its own work."""
    start = time.process_time()
    plan = replace(
        PLAN,
        config=ModelConfig("als", {"epochs": 1_000}),
        space={"embedding_size": Choices((32, 64))},
    )
    with pytest.raises(Cancelled):
        _tune(plan, rows=low_rank(300, 200, 0.5), cancelled=lambda: time.process_time() > start + 1)
    assert time.process_time() - start < 2
