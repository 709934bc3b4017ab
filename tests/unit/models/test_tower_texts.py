"""Two towers that read texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from milvine.domain.catalog import Field, FieldType
from milvine.domain.entity import Side
from milvine.domain.errors import Cancelled, FailedPrecondition, InvalidArgument, Reason
from milvine.domain.model import Setting
from milvine.models import Run, families
from milvine.models.features import Features
from milvine.models.texts import TextCode
from milvine.text import same_encoder, text_encoder
from milvine.training.dataset import fingerprint, with_fields
from tests.unit.models.worlds import CATALOG, checkerboard, dataset_of

SETTINGS = {"embedding_size": 8, "epochs": 30, "learning_rate": 0.02}
READER = text_encoder("hashing:256")
SHOP = replace(
    CATALOG,
    item_fields=(
        Field("title", FieldType.STRING, embed_text=True),
        Field("blurb", FieldType.STRING, embed_text=True),
    ),
    user_fields=(Field("about", FieldType.STRING, embed_text=True),),
)
WORDS = ("gentle meadow flowers", "roaring engine thunder")


def _item(number: int) -> dict[str, str]:
    """Only its words tell of which kind it is."""
    return {"title": f"number {number}", "blurb": WORDS[number % 2]}


def _read(side: Side, fields: Sequence[Field]) -> pa.Table:
    rows = [{"id": f"i{n:02}", **_item(n)} for n in range(40)]
    if side is Side.USER:
        rows = [{"id": f"u{n:02}", "about": f"fond of {WORDS[n % 2]}"} for n in range(40)]
    names = ["id", *(field.name for field in fields)]
    return pa.table({name: [row[name] for row in rows[::-1]] for name in names})


def _fitted(size: int = 30, reader=READER, process_count: int = 1, **settings: Setting):
    kind = families["two_tower"]
    config = kind.config(SETTINGS | settings)
    dataset = dataset_of("two_tower", checkerboard(size))
    dataset = with_fields(dataset, kind.fields(config, SHOP), _read, reader)
    return kind, config, dataset, kind.fit(dataset, config, Run(process_count=process_count))


def test_a_new_item_is_recommended_by_its_text():
    """Where only words tell items apart, users find new ones by them."""
    kind, config, dataset, fitted = _fitted()
    users = kind.encoder(config, fitted.tensors).encode(dataset.histories)
    new = kind.item_encoder(config, fitted.tensors, same_encoder).encode([_item(98), _item(99)])
    scores = users @ new.T
    even_users = np.arange(30) % 2 == 0
    assert (scores[even_users, 0] > scores[even_users, 1]).all()
    assert (scores[~even_users, 1] > scores[~even_users, 0]).all()


def test_new_items_are_as_long_as_known_ones():
    """So they stand among the best of all items, not only among each other."""
    kind, config, _, fitted = _fitted()
    encoder = kind.item_encoder(config, fitted.tensors, same_encoder)
    new = encoder.encode([_item(n) for n in range(100, 130)])
    lengths = [np.sqrt(np.square(v).sum(axis=1).mean()) for v in (new, fitted.item_vectors)]
    assert 0.5 < lengths[0] / lengths[1] < 2.0


def test_a_new_user_is_placed_by_text():
    """Someone without a history gets what others who are so described like."""
    kind, config, dataset, fitted = _fitted()
    encoding = kind.encodings(fitted.tensors, same_encoder)[Side.USER]
    nobody = dataset.histories.keep(np.zeros(len(dataset.histories.items), bool))
    told = encoding.of([{"about": WORDS[0]}, {"about": WORDS[1]}, {"about": " "}, {}])
    four = replace(nobody.take(np.arange(4)), features=told)
    assert four.is_known.tolist() == [True, True, False, False]
    scores = kind.encoder(config, fitted.tensors).encode(four) @ fitted.item_vectors.T
    assert scores[0, 0::2].min() > scores[0, 1::2].max()
    assert scores[1, 1::2].min() > scores[1, 0::2].max()


def test_an_item_that_says_nothing_has_no_vector():
    """Blank texts, and none at all, place no item."""
    kind, config, _, fitted = _fitted(epochs=1)
    encoder = kind.item_encoder(config, fitted.tensors, same_encoder)
    vectors = encoder.encode([{}, {"title": " \n"}, {"title": "engine"}])
    assert np.isnan(vectors).all(axis=1).tolist() == [True, True, False]


def test_a_user_is_the_same_alone_and_among_others():
    """What a batch makes of a history and a text, a request makes of it, too."""
    kind, config, dataset, fitted = _fitted(epochs=3)
    encoder = kind.encoder(config, fitted.tensors)
    together = encoder.encode(dataset.histories)
    one = dataset.histories.take(np.array([7]))
    encoding = kind.encodings(fitted.tensors, same_encoder)[Side.USER]
    asked = replace(one, features=encoding.of([{"about": f"fond of {WORDS[1]}"}]))
    for history in (one, asked):
        np.testing.assert_allclose(encoder.encode(history)[0], together[7], rtol=1e-4, atol=1e-5)


def test_whoever_says_nothing_joins_those_who_do():
    """Features with texts and without are one batch."""
    kind, _, _, fitted = _fitted(epochs=1)
    said = kind.encodings(fitted.tensors, same_encoder)[Side.USER].of([{"about": "flowers"}])
    both = Features.joined([said, Features.none(2, said.token_count, said.numbers.shape[1])])
    assert both.is_known.tolist() == [True, False, False]
    assert both.take(np.array([2, 0])).texts.said.tolist() == ["", "flowers"]


def test_a_model_asks_for_the_reader_it_was_trained_with():
    """Its name and version are in the artifact; what needs no text needs no reader."""
    kind, config, dataset, fitted = _fitted(epochs=1)
    asked = []

    def none_here(name: str, version: str):
        asked.append((name, version))
        raise FailedPrecondition("not here", Reason.WRONG_STATE)

    encoder = kind.item_encoder(config, fitted.tensors, none_here)
    assert np.isnan(encoder.encode([{}])).all()
    with pytest.raises(FailedPrecondition, match="not here"):
        encoder.encode([_item(0)])
    assert asked == [("hashing:256", READER.fingerprint)]
    without = replace(dataset.histories, features=None)
    kind.encoder(config, fitted.tensors).encode(without)


def test_another_version_of_the_reader_is_refused():
    """Vectors of other texts would place items anywhere."""
    kind, config, _, fitted = _fitted(epochs=1, reader=_Old())
    encoder = kind.item_encoder(config, fitted.tensors, same_encoder)
    with pytest.raises(FailedPrecondition, match=r"hashing-0-256.*train and publish again"):
        encoder.encode([_item(0)])


class _Old:
    """The reader as it was before."""

    name = READER.name
    fingerprint = "hashing-0-256"
    encode = staticmethod(READER.encode)


def test_texts_can_be_left_out():
    """By the setting, without a reader, and where fewer than ten say something."""
    for dataset, tensors in (
        (found[2], found[3].tensors)
        for found in (_fitted(epochs=1, text=False), _fitted(epochs=1, reader=None))
    ):
        assert dataset.encodings == {}
        assert not any("text" in name or "fields" in name for name in tensors)
    kind, config, _, few = _fitted(size=8, epochs=1)
    assert kind.item_encoder(config, few.tensors, same_encoder) is None
    assert kind.encodings(few.tensors, same_encoder) == {}


def test_a_text_can_be_a_category_as_well():
    """A field that a setting names is read by its values, and still as text."""
    kind, _, dataset, fitted = _fitted(epochs=1, item_fields="blurb")
    encoding = kind.encodings(fitted.tensors, same_encoder)[Side.ITEM]
    assert [code.name for code in encoding.codes] == ["blurb"]
    assert encoding.text.names == ("title", "blurb")
    assert encoding == dataset.encodings[Side.ITEM]


def test_the_same_texts_give_the_same_bytes():
    """Training with texts is as repeatable as without, and other texts are other data."""
    (_, _, data, first), (_, _, _, second) = (_fitted(seed=3, epochs=3) for _ in range(2))
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    other = _fitted(epochs=1, reader=text_encoder("hashing:128"))[2]
    assert fingerprint(other) != fingerprint(data)


def test_processes_learn_the_same_of_texts():
    """Several read texts, and validate by them, as one does; not one of them has the reader."""
    settings = {"epochs": 3, "batch_size": 60, "patience": 2}
    one, two = (_fitted(process_count=count, **settings)[3] for count in (1, 2))
    for kind in ("loss", "metric"):
        values = [[getattr(epoch, kind) for epoch in fitted.epochs] for fitted in (one, two)]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-3)


def test_a_cancel_stops_the_reading_of_texts():
    """A slow reader does not keep a cancel waiting."""
    kind, config, dataset, _ = _fitted(epochs=1)
    read = []

    class Slow(_Old):
        def encode(self, texts):
            read.append(len(texts))
            return READER.encode(texts)

    dataset = with_fields(dataset, kind.fields(config, SHOP), _read, Slow())
    with pytest.raises(Cancelled):
        kind.fit(dataset, config, Run(cancelled=lambda: bool(read)))
    assert len(read) == 1


def test_the_same_text_is_read_once():
    """To explain a recommendation asks for many copies of a user."""
    read = []

    class Counting(_Old):
        def encode(self, texts):
            read.extend(texts)
            return READER.encode(texts)

    code = TextCode.of(("about",), Counting())
    texts = code.texts(pa.table({"about": ["b", "a", "b", None, "a"]}))

    vectors = texts.vectors(np.array([0, 1, 2, 4]))

    assert sorted(read) == ["a", "b"]
    np.testing.assert_array_equal(vectors, READER.encode(["b", "a", "b", "a"]))


@pytest.mark.parametrize("value", [1, "yes"])
def test_whether_to_read_texts_is_true_or_false(value):
    """Numbers and words are neither."""
    with pytest.raises(InvalidArgument, match=r"config\.two_tower\.text: must be true or false"):
        families["two_tower"].config({"text": value})
