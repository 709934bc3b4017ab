"""What holds for every family of models."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from milvine.domain.errors import Cancelled, FailedPrecondition, InvalidArgument, Reason
from milvine.domain.model import ModelConfig
from milvine.models import Run, families, family_of, filled
from tests.unit.models.worlds import LEARNT, checkerboard, dataset_of, encode, fit, low_rank

FAMILIES = sorted(families)
SMALL = {"embedding_size": 8, "epochs": 8}
GRADIENT = {"bpr", "lightgcn", "mult_vae", "neural_cf", "sasrec", "softmax_mf", "two_tower"}
"""The families that take steps on drawn items, so that losses fall in the long run only."""


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_checkerboard(family):
    """On a checkerboard with the diagonal withheld, the best item new to user u is item u."""
    dataset = dataset_of(family, rows := checkerboard())
    fitted, encoder = fit(family, dataset, **LEARNT.get(family, {}))
    scores = encoder.encode(dataset.histories) @ fitted.item_vectors.T
    seen = {(user, item) for user, item, *_ in rows}
    for u, user in enumerate(dataset.users.ids.to_pylist()):
        new = [(scores[u, i], item) for i, item in enumerate(dataset.items.ids.to_pylist())
               if (user, item) not in seen]  # fmt: skip
        assert max(new)[1] == user.replace("u", "i")


def test_same_seed_same_vectors(family):
    """The same data, settings and seed give the same bytes."""
    dataset = dataset_of(family, checkerboard(20))
    first, second = (fit(family, dataset, seed=7, **SMALL)[0] for _ in range(2))
    assert first.tensors.keys() == second.tensors.keys()
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


def test_order_of_rows_does_not_matter(family):
    """The order in which interactions were recorded changes nothing."""
    rows = checkerboard(20)
    first, _ = fit(family, dataset_of(family, rows), **SMALL)
    second, _ = fit(family, dataset_of(family, rows[::-1]), **SMALL)
    assert np.array_equal(first.item_vectors, second.item_vectors)


def test_another_seed_other_vectors(family):
    """Another seed gives other vectors."""
    dataset = dataset_of(family, checkerboard(20))
    first, second = (fit(family, dataset, seed=seed, **SMALL)[0] for seed in (0, 1))
    assert not np.allclose(first.item_vectors, second.item_vectors)


def test_loss_falls(family):
    """The loss falls from each pass to the next, and each pass is reported as it ends."""
    heard = []
    settings = SMALL | ({"learning_rate": 0.02} if family in GRADIENT else {})
    fitted, _ = fit(family, dataset_of(family, low_rank(40, 30, 0.4)), heard.append, **settings)
    losses = [report.loss for report in fitted.epochs]
    if family in GRADIENT:
        losses = [np.mean(losses[:3]), np.mean(losses[-3:])]
    assert all(after < before for before, after in itertools.pairwise(losses))
    assert tuple(heard) == fitted.epochs
    assert [report.epoch for report in heard] == list(range(1, 9))
    assert all(report.epoch_count == 8 and report.seconds > 0 for report in heard)


def test_users_are_encoded_alike_alone_and_together(family):
    """A user's vector does not depend on who else is encoded, nor on when."""
    dataset = dataset_of(family, low_rank(60, 40, 0.3))
    _, encoder = fit(family, dataset, **SMALL)
    together = encoder.encode(dataset.histories)
    alone = [encoder.encode(dataset.histories.take(np.array([u]))) for u in range(60)]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-4, atol=1e-6)


def test_encoder_may_be_shared_by_threads(family):
    """Threads that encode at once get what each gets alone."""
    dataset = dataset_of(family, low_rank(60, 40, 0.3))
    _, encoder = fit(family, dataset, **SMALL)
    expected = encoder.encode(dataset.histories)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(encoder.encode, [dataset.histories] * 8))
    assert all(np.array_equal(result, expected) for result in results)


def test_liking_an_item_raises_its_neighbours(family):
    """After a user likes an item, the items most like it rise against the others."""
    dataset = dataset_of(family, checkerboard())
    fitted, encoder = fit(family, dataset, **{**SMALL, **LEARNT.get(family, {})})
    even = np.array([int(i[1:]) % 2 == 0 for i in dataset.items.ids.to_pylist()])
    before = [("x", f"i{i:02}", "rate", 5.0, i) for i in (1, 3, 5)]
    after = [*before, *(("x", f"i{i:02}", "rate", 5.0, 10 + i) for i in (2, 4))]

    def lead(rows):
        scores = fitted.item_vectors @ encode(family, encoder, dataset, rows)
        return scores[even].mean() - scores[~even].mean()

    assert lead(before) < lead(after)


def test_empty_history_has_a_vector(family):
    """A user without history has a finite vector, the same as any such user."""
    dataset = dataset_of(family, checkerboard(10))
    _, encoder = fit(family, dataset, **SMALL)
    vector = encode(family, encoder, dataset, [])
    assert vector.shape == (encoder.dimension,)
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    stranger = encode(family, encoder, dataset, [("x", "no such item", "rate", 5.0, 0)])
    assert np.array_equal(vector, stranger)


def test_vectors_have_the_dimension_of_the_encoder(family):
    """Item and user vectors have one dimension; the taste is its leading part."""
    dataset = dataset_of(family, checkerboard(10))
    fitted, encoder = fit(family, dataset, **SMALL)
    assert fitted.item_vectors.dtype == np.float32
    assert fitted.item_vectors.shape == (10, encoder.dimension)
    assert encoder.encode(dataset.histories).shape == (10, encoder.dimension)
    assert encoder.taste_dimension == 8 <= encoder.dimension


def test_one_interaction_is_enough(family):
    """A catalog of one user and one item trains, with more dimensions than items."""
    dataset = dataset_of(family, [("u", "i", "rate", 5.0, 0)])
    fitted, encoder = fit(family, dataset)
    assert np.isfinite(fitted.item_vectors).all()
    assert (encoder.encode(dataset.histories) @ fitted.item_vectors.T).item() > 0


def test_one_huge_value_spoils_no_number(family):
    """A value far beyond the rest leaves every vector finite."""
    user, item, *_ = (rows := checkerboard(20))[0]
    dataset = dataset_of(family, [*rows, (user, item, "rate", 1e39, 99)])
    fitted, encoder = fit(family, dataset, **SMALL)
    assert np.isfinite(encoder.encode(dataset.histories) @ fitted.item_vectors.T).all()


def test_a_loss_that_is_not_finite_ends_the_training(family):
    """A fit that settings make diverge fails with the epoch and the way out."""
    dataset = dataset_of(family, checkerboard(20))
    extreme = {"learning_rate": 1e30} if family in GRADIENT else {"regularization": 1e39}
    with pytest.raises(
        FailedPrecondition, match=r"diverged: the loss of epoch \d is not finite; look"
    ) as caught:
        fit(family, dataset, **extreme, **SMALL)
    assert caught.value.reason is Reason.TRAINING_DIVERGED


@pytest.fixture
def one_core():
    """Compute on one core, with what torch loads at its first optimizer, once, loaded."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_core")
def test_cancel_takes_effect_within_a_second(family):
    """A fit that is cancelled raises Cancelled after a second of one core's work at most.

    The process's time is taken: the clock tells what else the machine does.
    """
    kind = families[family]
    dataset = dataset_of(family, low_rank(300, 200, 0.5))
    config = kind.config({"embedding_size": 64, "epochs": 1_000})
    start = time.process_time()

    def is_cancelled():
        return time.process_time() > start + 0.3

    with pytest.raises(Cancelled):
        kind.fit(dataset, config, Run(cancelled=is_cancelled))
    assert time.process_time() - start < 1.3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embedding_size", 0),
        ("embedding_size", 2_049),
        ("embedding_size", 1.5),
        ("epochs", 0),
        ("epochs", 1_001),
        ("epochs", True),
        ("regularization", -0.1),
        ("regularization", float("nan")),
        ("regularization", float("inf")),
        ("regularization", "much"),
        ("seed", 2**63),
        ("no_such_setting", 1),
    ],
)
def test_bad_setting_is_named(family, name, value):
    """A setting out of its range raises InvalidArgument with its path."""
    with pytest.raises(InvalidArgument) as caught:
        families[family].config({name: value})
    assert [v.field for v in caught.value.violations] == [f"config.{family}.{name}"]


def test_every_bad_setting_is_named(family):
    """All settings that break their rules are told at once."""
    with pytest.raises(InvalidArgument) as caught:
        families[family].config({"epochs": 0, "embedding_size": 0, "seed": 1})
    assert len(caught.value.violations) == 2


def test_filled_is_complete_and_stable(family):
    """Filling in defaults gives every setting; filling in again changes nothing."""
    config = filled(ModelConfig(family, {"epochs": 3}))
    assert config.settings["epochs"] == 3
    assert config.settings["embedding_size"] in (32, 64)
    assert filled(config) == config


def test_unknown_family_is_refused():
    """A family that does not exist raises InvalidArgument with the known ones."""
    with pytest.raises(InvalidArgument, match="als, ratings_mf") as caught:
        family_of(ModelConfig("magic", {}))
    assert caught.value.violations[0].field == "config.family"
