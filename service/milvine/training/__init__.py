"""Training: interactions in, a measured model out."""

from milvine.training.evaluation import evaluate, ranking_metrics, split
from milvine.training.memory import memory_told
from milvine.training.train import train

__all__ = ["evaluate", "memory_told", "ranking_metrics", "split", "train"]
