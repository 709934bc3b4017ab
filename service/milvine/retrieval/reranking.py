"""Ranking retrieved items anew, by models whose scores are more than inner products.

The best MOST_RERANKED items by inner product are scored by the whole model. The others follow in
their order: their scores are lowered until none is over the least of those. So a list has one
order, whatever page of it is asked for, and all that matches is in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from milvine.models.base import MOST_RERANKED, Scorer, whole_gains
from milvine.retrieval.batches import Batches
from milvine.retrieval.ranking import Rows, Slate

SLOTS = 2
"""Scorings under way, in a thread each."""
MOST_SUBJECTS = 32
"""A scoring takes no further request once it has so many subjects."""
_PAIRS = 1 << 16
"""Pairs of a subject and an item that are scored at a time, for they take some memory."""

Reader = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    reader: Reader
    rows: Rows


class Reranker:
    """Scores retrieved items by whole models, for many requests at once."""

    def __init__(self) -> None:
        self._batches: Batches[Scorer, _Question, NDArray[np.float64]] = Batches(
            _answer, slots=SLOTS, most=MOST_SUBJECTS
        )

    async def rerank(
        self,
        lane: str,
        scorer: Scorer,
        slates: Sequence[Slate],
        readers: Sequence[Reader | None],
        *,
        most: int = MOST_RERANKED,
    ) -> list[Slate]:
        """Slates of inner products with the scores of the whole model for the best `most` of each.

        A subject without a reader keeps the inner products.

        Args:
            lane: What takes turns with others.
            scorer: The model's.
            slates: What was retrieved for each subject.
            readers: What the scorer knows of each subject.
            most: How many.
        """
        heads = [_head(slate, most) for slate in slates]
        asked = {
            i: _Question(reader, slates[i].rows[heads[i]])
            for i, reader in enumerate(readers)
            if reader is not None and len(heads[i])
        }
        found = await self._batches.answers(lane, scorer, [*asked.values()]) if asked else ()
        gains = dict(zip(asked, found, strict=True))
        return [
            reranked(slate, heads[i], gains[i]) if i in gains else slate
            for i, slate in enumerate(slates)
        ]


def reranked(slate: Slate, head: NDArray[np.int64], gains: NDArray[np.float64]) -> Slate:
    """A slate whose head, (n,) places of the best, has gained; nothing else comes before that."""
    scores = slate.scores.copy()
    scores[head] += gains
    is_tail = np.ones(len(slate), bool)
    is_tail[head] = False
    if is_tail.any():
        scores[is_tail] -= max(0.0, scores[is_tail].max() - scores[head].min())
    return Slate(slate.rows, scores)


def _head(slate: Slate, most: int) -> NDArray[np.int64]:
    """The places of the best, of equals those with the smaller rows."""
    places = np.arange(len(slate))
    if most < len(slate):
        least = np.partition(slate.scores, len(slate) - most)[len(slate) - most]
        places = np.flatnonzero(slate.scores >= least)
    return places[np.lexsort((slate.rows[places], -slate.scores[places]))][:most]


async def _answer(scorer: Scorer, questions: Sequence[_Question]) -> list[NDArray[np.float64]]:
    return await asyncio.to_thread(_gains, scorer, questions)


def _gains(scorer: Scorer, questions: Sequence[_Question]) -> list[NDArray[np.float64]]:
    """What items gain, (n,) each."""
    lengths = np.array([len(question.rows) for question in questions])
    is_item = np.arange(lengths.max()) < lengths[:, None]
    rows = np.zeros(is_item.shape, np.int32)
    rows[is_item] = np.concatenate([question.rows for question in questions])
    readers = np.stack([question.reader for question in questions])
    step = max(1, _PAIRS // is_item.shape[1])
    found: list[NDArray[np.float64]] = []
    for at in range(0, len(questions), step):
        some = slice(at, at + step)
        found.extend(whole_gains(scorer, readers[some], rows[some], is_item[some]))
    return [own[:length] for own, length in zip(found, lengths, strict=True)]
