"""The families of models: each learns item vectors and an encoder of users."""

from milvine.models.base import (
    Checkpoints,
    Dataset,
    Encoder,
    Family,
    Feedback,
    Fitted,
    Histories,
    Run,
)
from milvine.models.families import families, family_of, filled
from milvine.models.histories import history_of, teaches
from milvine.models.serving import ServingModel, load_serving_model
from milvine.models.vocabulary import Vocabulary

__all__ = [
    "Checkpoints",
    "Dataset",
    "Encoder",
    "Family",
    "Feedback",
    "Fitted",
    "Histories",
    "Run",
    "ServingModel",
    "Vocabulary",
    "families",
    "family_of",
    "filled",
    "history_of",
    "load_serving_model",
    "teaches",
]
