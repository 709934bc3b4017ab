"""Two orders of the same items as one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from milvine.domain.query import Fusion, ReciprocalRank

_Scores = NDArray[np.float64]


def fused(text: _Scores, personal: _Scores, fusion: Fusion) -> _Scores:
    """The fused scores (n,) of items by what they say, (n,) best first, and by whom they suit.

    By reciprocal rank (Cormack, Clarke and Büttcher 2009, "Reciprocal rank fusion outperforms
    Condorcet and individual rank learning methods"): the sum of 1 / (k + rank) in both orders. By
    weights: the weighted sum of both scores, each scaled to 0 to 1 over the items. An item whose
    personal score is NaN has nothing from that side.
    """
    known = ~np.isnan(personal)
    if isinstance(fusion, ReciprocalRank):
        places = np.full(len(personal), np.inf)
        places[known] = _ranks(personal[known])
        by_text = 1.0 / (fusion.k + np.arange(1, len(text) + 1))
        return np.asarray(by_text + 1.0 / (fusion.k + places), np.float64)
    by_person = np.zeros(len(personal))
    by_person[known] = _scaled(personal[known])
    return np.asarray(fusion.text * _scaled(text) + fusion.personal * by_person, np.float64)


def _ranks(scores: _Scores) -> NDArray[np.int64]:
    """The places from 1, (n,), the highest score first; of equals, the one that comes first."""
    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def _scaled(scores: _Scores) -> _Scores:
    if not len(scores) or (spread := np.ptp(scores)) == 0:
        return np.zeros(len(scores))
    return np.asarray((scores - scores.min()) / spread, np.float64)
