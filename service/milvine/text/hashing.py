"""Texts as hashed counts of words and parts of words: light, and with nothing to download.

Weinberger, Dasgupta, Langford, Smola and Attenberg 2009, "Feature hashing for large scale multitask
learning", section 2: a feature adds its weight, by a hashed sign, to a hashed dimension, so that
inner products are those of the full counts but for noise without bias. The features are words,
pairs of words that follow each other, and, so that misspelt and inflected words are alike, the
parts of words (Bojanowski, Grave, Joulin and Mikolov 2017, "Enriching word vectors with subword
information", section 3.2). A feature that occurs n times counts 1 + log(n).
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

DIMENSION = 2_048
_VERSION = 1
"""Counts up with every change of the vectors: what was built with others is built anew."""
_BATCH = 1_024
"""Texts whose counts are summed at a time."""
_MOST_CHARACTERS = 20_000
"""Of a longer text the beginning counts."""
_WORDS = re.compile(r"\w+")
_PART_LENGTHS = (3, 4, 5)
_LONGEST_IN_PARTS = 40
"""Longer words, such as addresses, are of no use in parts."""
_PAIR_WEIGHT = 0.25
_CACHED_WORDS = 1 << 16


@dataclass(frozen=True, slots=True)
class HashingEncoder:
    """Hashed words, pairs of words and parts of words."""

    name: str = "hashing"
    dimension: int = DIMENSION

    @property
    def fingerprint(self) -> str:
        """What tells its vectors from those of every other encoder, and version of it."""
        return f"hashing-{_VERSION}-{self.dimension}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors (texts, dimension) of length 1; 0 for a blank text."""
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), _BATCH):
            vectors[start : start + _BATCH] = self._encode(texts[start : start + _BATCH])
        return vectors

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        counted = [_Features.of(text) for text in texts]
        checksums = np.array([c for one in counted for c in one.checksums], np.uint32)
        weights = np.array([w for one in counted for w in one.weights], np.float64)
        rows = np.repeat(np.arange(len(texts)), [len(one.weights) for one in counted])
        hashes = _mixed(checksums)
        signed = np.where(hashes & 1, -weights, weights)
        cells = rows * self.dimension + (hashes >> 1).astype(np.int64) % self.dimension
        summed = np.bincount(cells, signed, minlength=len(texts) * self.dimension)
        counts = summed.reshape(len(texts), self.dimension)
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        return np.asarray(counts / np.where(lengths > 0, lengths, 1.0), np.float64)


@dataclass(frozen=True, slots=True)
class _Features:
    """The features of a text by their checksums, with their weights."""

    checksums: Sequence[int]
    weights: Sequence[float]

    @classmethod
    def of(cls, text: str) -> _Features:
        checksums: list[int] = []
        weights: list[float] = []
        words = _words(text)
        for word, count in Counter(words).items():
            known = _checksums(word)
            weight, parts = 1.0 + math.log(count), len(known) - 1
            checksums += known
            weights.append(weight)
            weights += [weight / math.sqrt(parts)] * parts if parts else []
        for pair, count in Counter(pairwise(words)).items():
            checksums.append(zlib.crc32(" ".join(pair).encode()))
            weights.append(_PAIR_WEIGHT * (1.0 + math.log(count)))
        return cls(checksums, weights)


def _words(text: str) -> list[str]:
    """The words of a text; of a text without one, its signs."""
    plain = _plain(text[:_MOST_CHARACTERS])
    return _WORDS.findall(plain) or plain.split()


def _plain(text: str) -> str:
    """A text without case, accents and variants of letters."""
    parts = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in parts if not unicodedata.combining(c))


@lru_cache(maxsize=_CACHED_WORDS)
def _checksums(word: str) -> tuple[int, ...]:
    """The checksums of a word, and of its parts; all of them together weigh as much as it."""
    parts = _parts(f"<{word}>") if len(word) <= _LONGEST_IN_PARTS else []
    return tuple(zlib.crc32(feature.encode()) for feature in (word, *parts))


def _parts(word: str) -> list[str]:
    return [
        f"#{word[start : start + length]}"  # a part is another feature than the same word
        for length in _PART_LENGTHS
        for start in range(len(word) - length + 1)
    ]


def _mixed(checksums: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Checksums, CRC-32, as hashes of evenly spread bits, mixed as MurmurHash3 ends."""
    mixed = checksums
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    return np.asarray(mixed ^ (mixed >> np.uint32(16)), np.uint32)
