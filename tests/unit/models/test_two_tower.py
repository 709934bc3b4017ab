"""Two towers with features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import Side
from milvine.domain.errors import InvalidArgument
from milvine.domain.model import EpochReport, Setting
from milvine.models import Run, families
from milvine.text import same_encoder
from milvine.training.dataset import with_fields
from tests.unit.models.worlds import CATALOG, checkerboard, dataset_of, encode, fit, low_rank

SETTINGS = {"embedding_size": 8, "epochs": 60, "learning_rate": 0.02}


CLUB = replace(
    CATALOG,
    item_fields=(Field("colour", FieldType.STRING), Field("shade", FieldType.DOUBLE)),
    user_fields=(Field("likes", FieldType.STRING_LIST),),
)
COLOURS = ("even", "odd")


def _item(number: int) -> dict[str, object]:
    """Its colour, and a number that says the same."""
    return {"colour": COLOURS[number % 2], "shade": float(number % 2)}


def _read(side: Side, fields: Sequence[Field]) -> pa.Table:
    """The fields of items and users of the checkerboard, in no order, and of others."""
    rows = [{"id": f"i{n:02}", **_item(n)} for n in range(40)]
    if side is Side.USER:
        rows = [{"id": f"u{n:02}", "likes": [COLOURS[n % 2]]} for n in range(40)]
    names = ["id", *(field.name for field in fields)]
    return pa.table({name: [row[name] for row in rows[::-1]] for name in names})


def _fitted(size: int = 20, process_count: int = 1, **settings: Setting):
    kind = families["two_tower"]
    config = kind.config(SETTINGS | settings)
    dataset = dataset_of("two_tower", checkerboard(size))
    dataset = with_fields(dataset, kind.fields(config, CLUB), _read)
    fitted = kind.fit(dataset, config, Run(process_count=process_count))
    return kind, config, dataset, fitted


def test_a_new_item_is_recommended_by_its_fields():
    """Items that no one has had are ranked by what they are known by."""
    kind, config, dataset, fitted = _fitted()
    users = kind.encoder(config, fitted.tensors).encode(dataset.histories)
    new = kind.item_encoder(config, fitted.tensors, same_encoder).encode([_item(0), _item(1)])
    scores = users @ new.T
    even_users = np.arange(20) % 2 == 0
    assert (scores[even_users, 0] > scores[even_users, 1]).all()
    assert (scores[~even_users, 1] > scores[~even_users, 0]).all()


def test_an_item_of_which_nothing_is_known_has_no_vector():
    """Fields that are missing or of another model give none; a new value gives one."""
    kind, config, _, fitted = _fitted()
    encoder = kind.item_encoder(config, fitted.tensors, same_encoder)
    vectors = encoder.encode([{}, {"other": 3}, {"colour": "never seen"}])
    assert np.isnan(vectors).all(axis=1).tolist() == [True, True, False]
    assert encoder.encode([]).shape == (0, 8)


def test_a_new_user_is_placed_by_fields():
    """Someone without a history gets what others of the same fields like."""
    kind, config, dataset, fitted = _fitted()
    encoding = kind.encodings(fitted.tensors, same_encoder)[Side.USER]
    nobody = dataset.histories.keep(np.zeros(len(dataset.histories.items), bool))
    three = replace(
        nobody.take(np.arange(3)),
        features=encoding.of([{"likes": ("even",)}, {"likes": ("odd",)}, {}]),
    )
    assert three.is_known.tolist() == [True, True, False]
    scores = kind.encoder(config, fitted.tensors).encode(three) @ fitted.item_vectors.T
    assert scores[0, 0::2].min() > scores[0, 1::2].max()
    assert scores[1, 1::2].min() > scores[1, 0::2].max()


def test_a_history_counts_beside_fields():
    """What someone did moves the vector that fields gave, and an encoding alone is one of many."""
    kind, config, dataset, fitted = _fitted()
    encoder = kind.encoder(config, fitted.tensors)
    together = encoder.encode(dataset.histories)
    alone = encoder.encode(dataset.histories.take(np.array([7])))
    without = encoder.encode(replace(dataset.histories, features=None))
    np.testing.assert_allclose(alone[0], together[7], rtol=1e-4, atol=1e-6)
    assert np.abs(without - together).max() > 0.01


def test_the_same_fields_give_the_same_bytes():
    """Training with fields is as repeatable as without."""
    first, second = (_fitted(seed=3, epochs=3)[3] for _ in range(2))
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)


def test_processes_learn_the_same_of_fields():
    """Several read fields, and stand events against negatives of the whole batch, as one does."""
    settings = {"epochs": 5, "batch_size": 30, "hard_negative_count": 2}
    one, three = (_fitted(process_count=count, **settings)[3] for count in (1, 3))
    losses = [[epoch.loss for epoch in fitted.epochs] for fitted in (one, three)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    # What all items have in common changes no loss: rounding alone moves it.
    common = {"item_vectors", "new_items", "network.target_features.numbers.bias"}
    assert one.tensors.keys() == three.tensors.keys()
    for name in one.tensors.keys() - common:
        np.testing.assert_allclose(three.tensors[name], one.tensors[name], rtol=1e-4, atol=1e-5)
    apart = [vectors - vectors.mean(axis=0) for vectors in (one.item_vectors, three.item_vectors)]
    np.testing.assert_allclose(apart[1], apart[0], rtol=1e-4, atol=1e-5)


def test_fields_can_be_chosen_and_left_out():
    """A setting names fields; an empty one reads none, and then nothing new has a vector."""
    kind, config, dataset, fitted = _fitted(item_fields="", user_fields="", epochs=1)
    assert dataset.encodings == {}
    assert dataset.item_features is dataset.histories.features is None
    assert kind.item_encoder(config, fitted.tensors, same_encoder) is None
    _, _, dataset, _ = _fitted(item_fields=" shade ,colour,shade", epochs=1)
    assert [code.name for code in dataset.encodings[Side.ITEM].codes] == ["shade", "colour"]


@pytest.mark.parametrize("name", ["item_fields", "user_fields"])
def test_a_field_that_is_not_declared_is_refused(name):
    """The error names the setting, the field and what there is."""
    with pytest.raises(InvalidArgument, match=f"config.two_tower.{name}.*'nope'.*declared are"):
        _fitted(**{name: "nope"})


@pytest.mark.parametrize("value", [7, "x" * 5_000])
def test_names_must_be_text(value):
    """Numbers and endless texts are no names."""
    with pytest.raises(InvalidArgument, match="item_fields: must be names"):
        families["two_tower"].config({"item_fields": value})


@pytest.mark.parametrize("count", [1, 5, 1_000])
def test_hard_negatives_still_find_the_answer(count):
    """With hard negatives, also more of them than there are, items of one's colour stay first."""
    dataset = dataset_of("two_tower", checkerboard(20))
    fitted, encoder = fit("two_tower", dataset, hard_negative_count=count, **SETTINGS)
    scores = encoder.encode(dataset.histories) @ fitted.item_vectors.T
    same = (np.arange(20)[:, None] + np.arange(20)) % 2 == 0
    assert np.where(same, scores, np.inf).min() > np.where(same, -np.inf, scores).max() - 2.0
    assert (np.where(same, scores, 0).sum(1) > np.where(same, 0, scores).sum(1)).all()


def test_each_hard_negative_adds_to_the_loss():
    """An event stands against the best-scoring wrong items once more, as many as are asked for."""
    dataset = dataset_of("two_tower", low_rank(60, 40, 0.4))

    def loss(count: int) -> float:
        heard: list[EpochReport] = []
        fit("two_tower", dataset, heard.append, hard_negative_count=count, epochs=1)
        return heard[0].loss

    losses = [loss(count) for count in (0, 1, 3, 10, 1_000)]
    assert losses == sorted(set(losses))


def test_strong_events_weigh_more_where_asked():
    """With strength_scale, what a user had most to do with pulls the vector harder."""
    dataset = dataset_of("two_tower", checkerboard(20))
    fitted, encoder = fit("two_tower", dataset, strength_scale=2.0, **SETTINGS)
    even, odd = (fitted.item_vectors[place::2].mean(axis=0) for place in (0, 1))

    def lead(strength: float) -> float:
        events = [("x", "i02", "watch", strength, 0), ("x", "i03", "watch", 1.0, 1)]
        vector = encode("two_tower", encoder, dataset, events)
        return float(vector @ (even - odd))

    assert lead(1.0) < lead(100.0) < lead(100_000.0)


@pytest.mark.parametrize(
    ("strong", "weak"),
    [(("buy", 5.0), ("view", None)), (("watch", 3_600.0), ("watch", 5.0))],
    ids=["event weight", "watch time"],
)
def test_event_weights_and_watch_time_weigh_in_a_history(strong, weak):
    """What a user had more to do with pulls more, by the weight of the event or the time."""
    dataset = dataset_of("two_tower", checkerboard(20))
    fitted, encoder = fit("two_tower", dataset, strength_scale=1.0, **SETTINGS)
    even, odd = (fitted.item_vectors[place::2].mean(axis=0) for place in (0, 1))

    def lead(first, second) -> float:
        events = [("x", "i02", *first, 0), ("x", "i03", *second, 1)]
        return float(encode("two_tower", encoder, dataset, events) @ (even - odd))

    assert lead(strong, weak) > lead(weak, weak) > lead(weak, strong)
