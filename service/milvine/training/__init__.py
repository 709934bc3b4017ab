"""Training: interactions in, a measured model out."""

from milvine.training.content import ItemTexts, read_texts
from milvine.training.evaluation import evaluate
from milvine.training.holdout import split
from milvine.training.measuring import Measuring, measure
from milvine.training.memory import memory_told
from milvine.training.metrics import ranking_metrics
from milvine.training.train import train

__all__ = [
    "ItemTexts",
    "Measuring",
    "evaluate",
    "measure",
    "memory_told",
    "ranking_metrics",
    "read_texts",
    "split",
    "train",
]
