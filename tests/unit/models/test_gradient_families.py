"""What holds for every family that learns by gradients."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.domain.errors import Cancelled, InvalidArgument, Reason
from milvine.models import Run, families
from milvine.models.base import ITEM_VECTORS, Tensors
from tests.unit.models.worlds import checkerboard, dataset_of, fit, low_rank

FAMILIES = ["bpr", "lightgcn", "mult_vae", "neural_cf", "sasrec", "softmax_mf", "two_tower"]
SMALL = {"embedding_size": 8, "epochs": 6, "batch_size": 100}


class Kept:
    """Checkpoints in memory."""

    def __init__(self) -> None:
        self.states: list[Tensors] = []

    def load(self) -> Tensors | None:
        return self.states[-1] if self.states else None

    def save(self, state: Tensors) -> None:
        self.states.append({name: array.copy() for name, array in state.items()})


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def _interrupted(family, dataset, settings, after: int) -> tuple[Kept, object]:
    """Checkpoints of a fit that was cancelled in the pass after that many, and its config."""
    kept, kind = Kept(), families[family]
    config = kind.config(settings)
    run = Run(cancelled=lambda: len(kept.states) >= after, checkpoints=kept)
    with pytest.raises(Cancelled):
        kind.fit(dataset, config, run)
    return kept, config


@pytest.mark.parametrize("patience", [0, 100])
def test_resumed_fit_equals_a_straight_one(family, patience):
    """A fit that goes on from a checkpoint gives the bytes of one that never stopped."""
    dataset = dataset_of(family, low_rank(40, 30, 0.5))
    settings = SMALL | {"patience": patience, "seed": 3}
    straight, _ = fit(family, dataset, **settings)
    kept, config = _interrupted(family, dataset, settings, after=3)
    heard = []
    resumed = families[family].fit(dataset, config, Run(on_epoch=heard.append, checkpoints=kept))
    assert [report.epoch for report in heard] == [1, 2, 3, 4, 5, 6]
    assert straight.tensors.keys() == resumed.tensors.keys()
    assert all(np.array_equal(straight.tensors[k], resumed.tensors[k]) for k in straight.tensors)
    measured = [(report.epoch, report.loss, report.metric) for report in straight.epochs]
    assert measured == [(report.epoch, report.loss, report.metric) for report in resumed.epochs]


def test_finished_fit_resumes_to_the_same(family):
    """A fit whose last pass is in the checkpoint makes no more passes."""
    dataset, kept = dataset_of(family, checkerboard(20)), Kept()
    kind = families[family]
    first = kind.fit(dataset, config := kind.config(SMALL), Run(checkpoints=kept))
    count = len(kept.states)
    again = kind.fit(dataset, config, Run(checkpoints=kept))
    assert len(kept.states) == count
    assert np.array_equal(first.item_vectors, again.item_vectors)


def test_stops_when_nothing_gets_better(family):
    """With patience, training ends so many passes after the best one, whose weights it keeps."""
    dataset, kept = dataset_of(family, low_rank(40, 30, 0.5)), Kept()
    kind = families[family]
    settings = SMALL | {"epochs": 200, "patience": 2, "learning_rate": 0.05}
    fitted = kind.fit(dataset, kind.config(settings), Run(checkpoints=kept))
    metrics = [report.metric for report in fitted.epochs]
    assert len(metrics) < 200
    best = int(np.argmax(metrics))
    assert len(metrics) == best + 1 + 2
    at_best = kind.fit(dataset, kind.config(settings), Run(checkpoints=_Ending(kept.states[best])))
    assert np.array_equal(fitted.item_vectors, at_best.item_vectors)


class _Ending(Kept):
    """A checkpoint whose best pass is as long ago as patience lasts."""

    def __init__(self, state: Tensors) -> None:
        super().__init__()
        reports = state["reports"]
        self.states = [{**state, "reports": np.concatenate([reports, reports[-1:], reports[-1:]])}]


def test_divergence_keeps_the_best_weights(family):
    """A loss that is not finite ends the fit with the weights of its checkpoint, and says so."""
    dataset, kept = dataset_of(family, checkerboard(20)), Kept()
    kind = families[family]
    settings = SMALL | {"learning_rate": 0.01, "batch_size": 2**20, "epochs": 1}
    sound = kind.fit(dataset, kind.config(settings), Run(checkpoints=kept))
    poisoned = kind.config(settings | {"learning_rate": 1e30, "epochs": 50})
    fitted = kind.fit(dataset, poisoned, Run(checkpoints=kept))
    assert fitted.divergence.reason is Reason.TRAINING_DIVERGED
    last = len(fitted.epochs)
    assert f"the loss of epoch {last + 1} is not finite" in fitted.divergence.message
    told = f"lower learning_rate, which is 1e+30; the best weights until then, of epoch {last}, are"
    assert told in fitted.divergence.message
    assert all(np.isfinite(array).all() for array in fitted.tensors.values())
    if last == 1:
        assert np.array_equal(fitted.item_vectors, sound.item_vectors)


def test_cancel_is_asked_before_each_step(family):
    """A fit asks whether it is cancelled many times in a pass."""
    dataset, asked = dataset_of(family, low_rank(40, 30, 0.5)), []
    kind = families[family]

    def cancelled() -> bool:
        asked.append(1)
        return False

    kind.fit(
        dataset, kind.config(SMALL | {"epochs": 1, "batch_size": 50}), Run(cancelled=cancelled)
    )
    assert len(asked) >= 5


def test_encoder_from_copied_tensors_is_the_same(family):
    """What an artifact keeps is all that the encoder needs, and it holds nothing of a user."""
    dataset = dataset_of(family, low_rank(41, 30, 0.5))
    fitted, encoder = fit(family, dataset, **SMALL)
    kind = families[family]
    copied = {name: array.copy() for name, array in fitted.tensors.items()}
    again = kind.encoder(kind.config(SMALL), copied)
    expected = encoder.encode(dataset.histories)
    assert np.array_equal(again.encode(dataset.histories), expected)
    assert all(41 not in array.shape for array in fitted.tensors.values())
    assert fitted.tensors[ITEM_VECTORS].shape == (30, encoder.dimension)


def test_history_without_events_beside_others(family):
    """A batch may hold users without events, also at its ends."""
    dataset = dataset_of(family, checkerboard(10))
    _, encoder = fit(family, dataset, **SMALL)
    none = dataset.histories.keep(np.zeros(len(dataset.histories.items), bool))
    assert np.isfinite(encoder.encode(none)).all()
    some = dataset.histories.keep(dataset.histories.users % 3 == 1)
    vectors = encoder.encode(some)
    np.testing.assert_array_equal(vectors[0], encoder.encode(none)[0])
    np.testing.assert_allclose(
        vectors[1], encoder.encode(dataset.histories)[1], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("learning_rate", 0), ("patience", -1)]
)
def test_bad_setting_of_the_schedule_is_named(family, name, value):
    """The settings that these families share have ranges too."""
    with pytest.raises(InvalidArgument) as caught:
        families[family].config({name: value})
    assert [v.field for v in caught.value.violations] == [f"config.{family}.{name}"]
