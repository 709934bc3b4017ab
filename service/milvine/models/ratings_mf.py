"""Explicit ratings: regularised matrix factorisation with biases.

Koren, Bell and Volinsky 2009, "Matrix factorization techniques for recommender systems", equation
4, solved by alternating least squares with the penalty weighted by a row's ratings, as in Zhou,
Wilkinson, Schreiber and Pan 2008, "Large-scale parallel collaborative filtering for the Netflix
prize", section 3.1:

    sum over ratings of (r - m - b_u - b_i - <p_u, q_i>)^2
    + regularization (sum over users of n_u |p_u|^2 + sum over items of n_i |q_i|^2)
    + bias_regularization (sum over users of b_u^2 + sum over items of b_i^2)

The biases are two dimensions more: an item is `[q_i, 1, b_i]` and a user `[p_u, m + b_u, 1]`, so
that the inner product is the predicted rating.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from numpy.typing import NDArray
from torch import Tensor

from milvine.domain.model import Setting
from milvine.models import config as settings_of
from milvine.models import least_squares, ridge
from milvine.models.base import (
    ITEM_VECTORS,
    Dataset,
    Encoder,
    Feedback,
    Fitted,
    Histories,
    Run,
    Tensors,
)
from milvine.models.config import real, whole
from milvine.models.epochs import Epochs

_MEAN = "mean_rating"


@dataclass(frozen=True, slots=True)
class RatingsMfConfig:
    """Settings of regularised factorisation of explicit ratings."""

    embedding_size: int = whole(32, 1, 2_048)
    """The dimensions of the embeddings; the biases add two."""
    epochs: int = whole(15, 1, 1_000)
    """The passes over the data."""
    regularization: float = real(0.1, 0)
    """The strength of the L2 penalty per rating."""
    bias_regularization: float = real(5.0, 0)
    """The strength of the L2 penalty on the biases, in ratings."""
    seed: int = settings_of.seed()
    """The seed of everything random."""


@dataclass(frozen=True, slots=True)
class RatingsMf:
    """The family `ratings_mf`."""

    name: str = "ratings_mf"
    learns_from: Feedback = Feedback.EXPLICIT
    is_parallel: bool = False

    def config(self, settings: Mapping[str, Setting]) -> RatingsMfConfig:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""
        return settings_of.read(RatingsMfConfig, self.name, settings)

    def fit(self, dataset: Dataset, config: RatingsMfConfig, run: Run) -> Fitted:
        """Learn item vectors and biases, and the mean rating."""
        by_user = dataset.histories
        by_item, pairs = least_squares.transposed(by_user, len(dataset.items))
        mean = float(by_user.strengths.mean(dtype=np.float64))
        users = _side(by_user, len(by_item), config, run.device)
        items = _side(by_item, len(by_user), config, run.device, pairs)
        user_vectors = torch.zeros(len(by_user), config.embedding_size + 1, device=run.device)
        item_vectors = F.pad(
            least_squares.initial(by_item, config.embedding_size, config.seed), (0, 1)
        ).to(run.device)
        above_mean = by_user.strengths - np.float32(mean)
        improve = partial(
            least_squares.improve,
            errors=torch.from_numpy(above_mean).to(run.device),
            cancelled=run.cancelled,
        )
        epochs = Epochs(config.epochs, run.on_epoch)
        for _ in epochs:
            user_vectors = improve(users, user_vectors, _features(item_vectors)).vectors
            sweep = improve(items, item_vectors, _features(user_vectors))
            item_vectors = sweep.vectors
            loss = sweep.loss + float((users.penalty * user_vectors.square()).sum())
            epochs.end(loss / len(by_user.items))
        vectors = torch.cat((_features(item_vectors), item_vectors[:, -1:]), dim=1)
        tensors = {ITEM_VECTORS: vectors.cpu().numpy(), _MEAN: np.array([mean])}
        return Fitted(tensors, epochs.reports)

    def encoder(self, config: RatingsMfConfig, tensors: Tensors) -> Encoder:
        """The encoder: the exact solution of a user's least squares, bias included."""
        return _RatingsEncoder(
            config,
            tensors[ITEM_VECTORS].astype(np.float32, copy=False),
            float(tensors[_MEAN].astype(np.float64)[0]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _RatingsEncoder:
    config: RatingsMfConfig
    item_vectors: NDArray[np.float32]
    mean: float

    @property
    def dimension(self) -> int:
        return self.config.embedding_size + 2

    @property
    def taste_dimension(self) -> int:
        return self.config.embedding_size

    def encode(self, histories: Histories) -> NDArray[np.float32]:
        features, biases = self.item_vectors[:, :-1], self.item_vectors[:, -1]
        targets = histories.strengths.astype(np.float64) - self.mean - biases[histories.items]
        seen = ridge.Observations(
            histories.offsets, histories.items, np.ones_like(targets), targets
        )
        vectors = np.ones((len(histories), self.dimension), np.float32)
        vectors[:, :-1] = ridge.solve(features, seen, _penalties(histories, self.config))
        vectors[:, -2] += np.float32(self.mean)
        return vectors


def _side(
    rows: Histories,
    column_count: int,
    config: RatingsMfConfig,
    device: str,
    pairs: NDArray[np.int64] | None = None,
) -> least_squares.Side:
    penalty = torch.from_numpy(_penalties(rows, config)).float().to(device)
    return least_squares.Side.of(rows, column_count, np.ones(len(rows.items)), penalty, pairs)


def _penalties(rows: Histories, config: RatingsMfConfig) -> NDArray[np.float64]:
    """(rows, d + 1): the L2 penalty of each row's vector and bias."""
    penalties = np.empty((len(rows), config.embedding_size + 1))
    penalties[:, :-1] = config.regularization * rows.lengths[:, None]
    penalties[:, -1] = config.bias_regularization
    return penalties


def _features(vectors: Tensor) -> Tensor:
    """What the other side sees of vectors with the bias last: a constant in its place."""
    return torch.cat((vectors[:, :-1], torch.ones_like(vectors[:, -1:])), dim=1)
