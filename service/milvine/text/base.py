"""What every encoder of texts has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TextEncoder(Protocol):
    """How texts become vectors whose inner product is a likeness; safe to call from threads."""

    @property
    def name(self) -> str:
        """Its name in the settings."""

    @property
    def dimension(self) -> int:
        """The dimensions of its vectors."""

    @property
    def fingerprint(self) -> str:
        """What tells its vectors from those of every other encoder, and version of it."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors (texts, dimension) of length 1; 0 for a text that says nothing."""
