"""Implicit alternating least squares.

Hu, Koren and Volinsky 2008, "Collaborative filtering for implicit feedback datasets", in the form
of Rendle, Krichene, Zhang and Koren 2022, "Revisiting the performance of iALS on item
recommendation benchmarks", section 3: with confidence c of the observed pairs S, the loss is

    sum over S of c (1 - <w_u, h_i>)^2 + a sum over all pairs of <w_u, h_i>^2
    + r sum over users of (c_u + a items)^e |w_u|^2 + r sum over items of (c_i + a users)^e |h_i|^2

where a is `unobserved_weight`, r is `regularization`, e is `regularization_exponent` and c_u, c_i
are the sums of confidences in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
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

_GRAM = "gram_diagonal"


@dataclass(frozen=True, slots=True)
class AlsConfig:
    """Settings of implicit alternating least squares."""

    embedding_size: int = whole(64, 1, 2_048)
    """The dimensions of the embeddings."""
    epochs: int = whole(15, 1, 1_000)
    """The passes over the data."""
    regularization: float = real(0.003, 0)
    """The strength of the L2 penalty."""
    regularization_exponent: float = real(1.0, 0, 1)
    """The power of its frequency by which a row's penalty grows."""
    unobserved_weight: float = real(0.1, 0, excludes_low=True)
    """The weight of a pair without interaction, where an interaction weighs 1 and more."""
    confidence_scale: float = real(0.0, 0)
    """How much strength raises confidence: 1 + confidence_scale * log(1 + strength)."""
    seed: int = settings_of.seed()
    """The seed of everything random."""


@dataclass(frozen=True, slots=True)
class Als:
    """The family `als`."""

    name: str = "als"
    learns_from: Feedback = Feedback.IMPLICIT
    is_parallel: bool = False

    def config(self, settings: Mapping[str, Setting]) -> AlsConfig:
        """The settings with defaults filled in; raises InvalidArgument naming each bad one."""
        return settings_of.read(AlsConfig, self.name, settings)

    def fit(self, dataset: Dataset, config: AlsConfig, run: Run) -> Fitted:
        """Learn item vectors, turned so that their Gram matrix is diagonal."""
        by_user = dataset.histories
        by_item, pairs = least_squares.transposed(by_user, len(dataset.items))
        users = _side(by_user, len(by_item), config, run.device)
        items = _side(by_item, len(by_user), config, run.device, pairs)
        user_vectors = torch.zeros(len(by_user), config.embedding_size, device=run.device)
        item_vectors = least_squares.initial(by_item, config.embedding_size, config.seed)
        item_vectors = item_vectors.to(run.device)
        improve = partial(
            least_squares.improve,
            errors=torch.ones(len(by_user.items), device=run.device),
            unobserved_weight=config.unobserved_weight,
            cancelled=run.cancelled,
        )
        epochs = Epochs(config.epochs, run.on_epoch)
        for _ in epochs:
            sweep = improve(users, user_vectors, item_vectors)
            user_vectors, item_vectors = sweep.vectors, sweep.fixed
            sweep = improve(items, item_vectors, user_vectors)
            item_vectors, user_vectors = sweep.vectors, sweep.fixed
            loss = sweep.loss + float((users.penalty * user_vectors.square()).sum())
            epochs.end(loss / len(by_user.items))
        vectors = _principal(item_vectors)
        gram = np.square(vectors, dtype=np.float64).sum(axis=0)
        return Fitted({ITEM_VECTORS: vectors, _GRAM: gram}, epochs.reports)

    def encoder(self, config: AlsConfig, tensors: Tensors) -> Encoder:
        """The encoder: the exact solution of a user's least squares."""
        return _AlsEncoder(
            config,
            tensors[ITEM_VECTORS].astype(np.float32, copy=False),
            tensors[_GRAM].astype(np.float64, copy=False),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _AlsEncoder:
    config: AlsConfig
    item_vectors: NDArray[np.float32]
    gram: NDArray[np.float64]

    @property
    def dimension(self) -> int:
        return len(self.gram)

    @property
    def taste_dimension(self) -> int:
        return len(self.gram)

    def encode(self, histories: Histories) -> NDArray[np.float32]:
        confidences = _confidences(histories, self.config)
        strength = _penalties(histories, confidences, len(self.item_vectors), self.config)
        penalty = self.config.unobserved_weight * self.gram + strength[:, None]
        targets = np.ones(len(confidences))
        seen = ridge.Observations(histories.offsets, histories.items, confidences, targets)
        return ridge.solve(self.item_vectors, seen, penalty)


def _confidences(histories: Histories, config: AlsConfig) -> NDArray[np.float64]:
    return 1.0 + config.confidence_scale * np.log1p(histories.strengths.astype(np.float64))


def _penalties(
    rows: Histories, confidences: NDArray[np.float64], column_count: int, config: AlsConfig
) -> NDArray[np.float64]:
    """(rows,): the L2 penalty of each row."""
    totals = np.bincount(rows.users, weights=confidences, minlength=len(rows))
    frequency = totals + config.unobserved_weight * column_count
    penalties = config.regularization * frequency**config.regularization_exponent
    return np.asarray(penalties, np.float64)


def _side(
    rows: Histories,
    column_count: int,
    config: AlsConfig,
    device: str,
    pairs: NDArray[np.int64] | None = None,
) -> least_squares.Side:
    confidences = _confidences(rows, config)
    penalty = torch.from_numpy(_penalties(rows, confidences, column_count, config))
    penalty = penalty.float().to(device)[:, None].expand(-1, config.embedding_size)
    return least_squares.Side.of(rows, column_count, confidences, penalty, pairs)


def _principal(vectors: Tensor) -> NDArray[np.float32]:
    """The vectors in the axes of their Gram matrix: it turns diagonal, inner products stay."""
    exact = vectors.double().cpu()
    _, axes = torch.linalg.eigh(exact.mT @ exact)
    turned: NDArray[np.float32] = (exact @ axes.flip(1)).float().numpy()
    return turned
