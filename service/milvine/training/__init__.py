"""Training: interactions in, a measured model out."""

from milvine.training.evaluation import evaluate, ranking_metrics, split
from milvine.training.train import train

__all__ = ["evaluate", "ranking_metrics", "split", "train"]
