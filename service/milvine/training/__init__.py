"""Training: interactions in, a measured model out."""

from milvine.training.evaluation import evaluate, ranking_metrics, split
from milvine.training.train import Stage, TrainingProgress, train

__all__ = ["Stage", "TrainingProgress", "evaluate", "ranking_metrics", "split", "train"]
