"""The encoders of texts by name."""

from __future__ import annotations

import re
from functools import cache

from milvine.domain.errors import FailedPrecondition, InvalidArgument, Reason
from milvine.text.base import TextEncoder
from milvine.text.hashing import DIMENSION, HashingEncoder
from milvine.text.minilm import MiniLmEncoder

DEFAULT = "hashing"
_HASHING = re.compile(r"hashing(?::(\d{2,4}))?")
_DIMENSIONS = (64, 8_192)


def check_name(name: str) -> None:
    """Raise ValueError for what names no encoder."""
    hashing = _HASHING.fullmatch(name)
    if name != "minilm" and not (hashing and _low_to_high(_dimension(hashing))):
        low, high = _DIMENSIONS
        raise ValueError(
            f"must be hashing, hashing:N for N dimensions from {low} to {high:,}, or minilm, "
            f"is {name!r}"
        )


@cache
def text_encoder(name: str) -> TextEncoder:
    """The encoder of a name; the same one each time, for it may hold a network.

    Args:
        name: `hashing` (2,048 dimensions), `hashing:N` for N dimensions, or `minilm`.

    Raises:
        ValueError: There is none of that name.
        InvalidArgument: It needs a package that is not installed; the message names the extra.
    """
    check_name(name)
    hashing = _HASHING.fullmatch(name)
    return HashingEncoder(name, _dimension(hashing)) if hashing else MiniLmEncoder()


def same_encoder(name: str, fingerprint: str) -> TextEncoder:
    """The encoder that something was built with, by its name and fingerprint.

    Raises:
        FailedPrecondition: It is not installed here, or makes other vectors in this version.
    """
    try:
        encoder = text_encoder(name)
    except InvalidArgument as exc:
        raise FailedPrecondition(
            f"it was built with the encoder {name!r}, which needs the extra `text`: "
            "pip install 'milvine[text]'",
            Reason.WRONG_STATE,
            {"text_encoder": name},
        ) from exc
    if encoder.fingerprint != fingerprint:
        raise FailedPrecondition(
            f"it was built with text vectors of {fingerprint}, this version makes those of "
            f"{encoder.fingerprint}; train and publish again",
            Reason.WRONG_STATE,
            {"text_encoder": name},
        )
    return encoder


def _dimension(hashing: re.Match[str]) -> int:
    return int(hashing[1] or DIMENSION)


def _low_to_high(dimension: int) -> bool:
    low, high = _DIMENSIONS
    return low <= dimension <= high
