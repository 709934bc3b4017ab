"""The families of models by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from milvine.domain.errors import InvalidArgument
from milvine.domain.model import ModelConfig
from milvine.models.als import Als
from milvine.models.base import Family
from milvine.models.bpr import Bpr
from milvine.models.lightgcn import LightGcn
from milvine.models.mult_vae import MultVae
from milvine.models.neural_cf import NeuralCf
from milvine.models.ratings_mf import RatingsMf
from milvine.models.sasrec import SasRec
from milvine.models.softmax_mf import SoftmaxMf
from milvine.models.two_tower import TwoTower

# Each family has a config type of its own, which only the family itself looks into.
_FAMILIES: tuple[Family[Any], ...] = (
    Als(),
    RatingsMf(),
    Bpr(),
    SoftmaxMf(),
    LightGcn(),
    NeuralCf(),
    MultVae(),
    TwoTower(),
    SasRec(),
)
families: Mapping[str, Family[Any]] = MappingProxyType({f.name: f for f in _FAMILIES})
"""The families by name."""


def family_of(config: ModelConfig) -> Family[Any]:
    """The family that a config names; raises InvalidArgument where there is none."""
    if config.family not in families:
        known = ", ".join(families)
        raise InvalidArgument.at("config.family", f"must be one of {known}, is {config.family!r}")
    return families[config.family]


def filled(config: ModelConfig) -> ModelConfig:
    """The config with defaults filled in; raises InvalidArgument naming each bad setting."""
    return ModelConfig(config.family, asdict(family_of(config).config(config.settings)))
