"""Self-attention over the order of histories."""

from __future__ import annotations

import numpy as np
import pytest

from milvine.domain.errors import InvalidArgument
from milvine.models import families
from tests.unit.models.worlds import dataset_of, encode, fit

SETTINGS = {"embedding_size": 16, "epochs": 60, "learning_rate": 0.01, "dropout": 0.0}


def _rounds(users: int, items: int) -> list:
    """Users who take the items one after the other, each from another place on."""
    return [
        (f"u{u:02}", f"i{(u + step) % items:02}", "view", None, step)
        for u in range(users)
        for step in range(items // 2)
    ]


def test_the_next_item_is_first():
    """Where items follow each other, the best new item is the one that comes next."""
    dataset = dataset_of("sasrec", _rounds(40, 20))
    fitted, encoder = fit("sasrec", dataset, **SETTINGS)
    scores = encoder.encode(dataset.histories) @ fitted.item_vectors.T
    scores[dataset.histories.users, dataset.histories.items] = -np.inf
    following = (np.arange(40) + 10) % 20
    assert (scores.argmax(axis=1) == following).mean() > 0.9


def test_order_counts():
    """The same items in another order give another vector."""
    dataset = dataset_of("sasrec", _rounds(20, 10))
    _, encoder = fit("sasrec", dataset, **SETTINGS)
    rows = [("x", f"i{i:02}", "view", None, i) for i in (1, 2, 3)]
    turned = [(u, i, e, v, -t) for u, i, e, v, t in rows]
    first, second = (encode("sasrec", encoder, dataset, some) for some in (rows, turned))
    assert not np.allclose(first, second, rtol=0.01)


def test_only_the_latest_events_count():
    """What lies further back than history_length changes nothing."""
    dataset = dataset_of("sasrec", _rounds(20, 10))
    _, encoder = fit("sasrec", dataset, history_length=3, **SETTINGS)
    short = [("x", f"i{i:02}", "view", None, i) for i in (5, 6, 7)]
    long = [("x", f"i{i:02}", "view", None, i) for i in (1, 2, 5, 6, 7)]
    np.testing.assert_allclose(
        encode("sasrec", encoder, dataset, long),
        encode("sasrec", encoder, dataset, short),
        rtol=1e-4,
        atol=1e-6,
    )


def test_heads_must_divide_the_dimensions():
    """Heads that do not fit are named."""
    with pytest.raises(InvalidArgument, match="must divide embedding_size, which is 64, is 3"):
        families["sasrec"].config({"heads": 3})
