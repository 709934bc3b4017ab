"""Models side by side."""

from __future__ import annotations

from milvine.cli.comparing import costs, figures, measured_otherwise
from milvine.v1 import model_pb2

HOLDOUT = model_pb2.Holdout(method="METHOD_LATEST", cutoffs=[10])
TAIL = model_pb2.SegmentEvaluation.SEGMENT_TAIL_ITEMS


def model(name, recall, *, data="d", dimension=8, holdout=HOLDOUT, **metrics):
    """A model that was measured at 10."""
    measured = model_pb2.RankingMetrics(cutoff=10, recall=recall, ndcg=0.5, **metrics)
    segment = model_pb2.SegmentEvaluation(segment=TAIL, model=[measured])
    return model_pb2.Model(
        model_id=name,
        dimension=dimension,
        item_count=1_000,
        evaluation=model_pb2.Evaluation(
            holdout=holdout, model=[measured], segments=[segment], held_out_fingerprint=data
        ),
    )


def by_name(rows):
    """Rows by their names."""
    return {row.name: row for row in rows}


def test_the_best_of_each_row_is_marked():
    """The greatest metric is best, unless two have it; what is wide or new is not better for it."""
    models = [model("a", 0.2, coverage=0.9), model("b", 0.3)]
    rows = by_name(figures(models, marked=True))
    assert rows["recall@10"].best == 1
    assert rows["recall@10"].shown == ("0.2000", "* 0.3000")
    assert rows["ndcg@10"].best is None
    assert rows["coverage@10"].best is None
    assert rows["tail items: recall@10"].best == 1


def test_costs_are_best_when_least():
    """The smaller model is the better one, by dimensions and by bytes."""
    rows = by_name(costs([model("a", 0.2, dimension=512), model("b", 0.3)]))
    assert rows["dimensions"].best == 1
    assert rows["item vectors, MB"].values == (2.048, 0.032)


def test_what_a_model_lacks_is_left_empty():
    """A model without novelty, segments or evaluation takes part in what it has."""
    models = [model("a", 0.2, novelty=3.0), model_pb2.Model(model_id="b")]
    rows = by_name(figures(models, marked=True))
    assert rows["novelty@10"].values == (3.0, None)
    assert rows["tail items: recall@10"].shown == ("0.2000", "")
    assert rows["recall@10"].best is None


def test_only_what_was_measured_alike_is_compared():
    """Another holdout, other held-out pairs, or none tell models apart."""
    at_5 = model_pb2.Holdout(method="METHOD_LATEST", cutoffs=[5])
    first = model("a", 0.2)
    assert measured_otherwise([first, model("b", 0.3)]) == []
    assert measured_otherwise([first, model("b", 0.3, data="e")]) == ["b"]
    assert measured_otherwise([first, model("b", 0.3, holdout=at_5)]) == ["b"]
    assert measured_otherwise([first, model_pb2.Model(model_id="b")]) == ["b"]
    assert measured_otherwise([model_pb2.Model(model_id="b"), first]) == ["b", "a"]
    rows = by_name(figures([first, model("b", 0.3, data="e")], marked=False))
    assert all(row.best is None for row in rows.values())
