"""Learning where items belong by what they say."""

import numpy as np
import pytest

from milvine.artifacts import Artifacts
from milvine.domain.errors import Cancelled
from milvine.domain.model import Holdout, HoldoutMethod, ModelConfig
from milvine.models.content import MIN_ITEMS, ContentMap
from milvine.text import text_encoder
from milvine.training import ItemTexts, train
from tests.unit.models.worlds import CATALOG, checkerboard, table

COLOURS = ("black night coal", "white snow milk")


def _texts(count: int, encoder="hashing:256") -> ItemTexts:
    """Each item of a checkerboard says its colour."""
    ids = [f"i{n:02}" for n in range(count)]
    return ItemTexts(("title",), ids, [COLOURS[n % 2] for n in range(count)], text_encoder(encoder))


def _train(tmp_path, texts, family="als", **options):
    artifacts = Artifacts(str(tmp_path / "artifacts"))
    model = train(
        table(checkerboard(20)),
        CATALOG,
        ModelConfig(family, {"embedding_size": 4, "epochs": 5}),
        Holdout(HoldoutMethod.NONE),
        model_id="m1",
        display_name="",
        artifacts=artifacts,
        device="cpu",
        report=options.pop("report", lambda _: None),
        cancelled=options.pop("cancelled", lambda: False),
        texts=texts,
    )
    return model, artifacts.load("m1")


@pytest.mark.parametrize("family", ["als", "ratings_mf"])
def test_a_model_learns_where_texts_belong(tmp_path, family):
    """A new item that says what items of a colour say is placed among them."""
    model, stored = _train(tmp_path, _texts(20), family)
    assert model.content.text_fields == ("title",)
    assert (model.content.text_encoder, model.content.item_count) == ("hashing:256", 20)
    assert model.content.fingerprint == text_encoder("hashing:256").fingerprint
    assert 0.3 < model.content.explained <= 1
    placed = ContentMap.of(stored.tensors).vectors(text_encoder("hashing:256").encode(COLOURS))
    vectors = stored.tensors["item_vectors"]
    for colour in range(2):
        distances = np.linalg.norm(vectors - placed[colour], axis=1)
        assert distances[colour::2].mean() < distances[1 - colour :: 2].mean()


@pytest.mark.parametrize("texts", [None, _texts(MIN_ITEMS - 1)])
def test_too_few_texts_teach_nothing(tmp_path, texts):
    """Without texts, or with a handful, there is no map; the model is as good as any."""
    model, stored = _train(tmp_path, texts)
    assert model.content is None
    assert ContentMap.of(stored.tensors) is None


def test_texts_of_unknown_items_are_passed_over(tmp_path):
    """Items that no one had to do with have no vector to learn from."""
    model, _ = _train(tmp_path, _texts(60))
    assert model.content.item_count == 20


def test_a_cancel_while_texts_are_read_stores_nothing(tmp_path):
    """The encoder may take minutes: a cancel is seen between its batches."""
    heard = []
    with pytest.raises(Cancelled):
        _train(tmp_path, _texts(20), report=heard.append, cancelled=lambda: len(heard) > 7)
    assert not Artifacts(str(tmp_path / "artifacts")).exists("m1")
