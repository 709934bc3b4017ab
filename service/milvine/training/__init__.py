"""Training: interactions in, a measured model out."""

from milvine.training.content import ItemTexts, read_texts
from milvine.training.evaluation import evaluate, ranking_metrics, split
from milvine.training.train import train

__all__ = ["ItemTexts", "evaluate", "ranking_metrics", "read_texts", "split", "train"]
