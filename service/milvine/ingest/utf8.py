"""Bytes that are no UTF-8, kept from failing a whole file.

Arrow's CSV parser gives up on them in some places. So each such byte becomes a character of
Unicode's last private area, U+10FF80 and up; the cells that have one are refused afterwards.
"""

from __future__ import annotations

import codecs
import io

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_MARKS = {0xDC00 + byte: 0x10FF00 + byte for byte in range(0x80, 0x100)}
_SHOWN = {0x10FF00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
_MARK_PATTERN = "[\U0010ff80-\U0010ffff]"
_MARGIN = 8  # a character's bytes from the end of the block before come on top


class Utf8Stream(io.RawIOBase):
    """The bytes of a stream with marks in place of what is no UTF-8."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._ready = b""
        self._has_ended = False
        self.has_marks = False

    def readable(self) -> bool:
        """Reading is what it is for."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._ready and not self._has_ended:
            block = self._stream.read(max(size - _MARGIN, 1))
            self._has_ended = not block
            self._ready = self._encode(self._decoder.decode(block, final=not block))
        read, self._ready = self._ready[:size], self._ready[size:]
        return read

    def _encode(self, text: str) -> bytes:
        try:
            return text.encode()
        except UnicodeEncodeError:
            self.has_marks = True
            return text.translate(_MARKS).encode()


def find_marks(texts: pa.Array) -> npt.NDArray[np.bool_]:
    """Which texts had bytes that are no UTF-8: (rows,) bool."""
    found = pc.match_substring_regex(texts, _MARK_PATTERN).fill_null(fill_value=False)
    mask: npt.NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    return mask


def show_marks(text: str) -> str:
    r"""The text with `\xff` in place of marks."""
    return text.translate(_SHOWN)
