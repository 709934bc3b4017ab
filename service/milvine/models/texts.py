"""What items and users are described by in words, until a model reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class TextReader(Protocol):
    """How texts become vectors; safe to call from several threads."""

    @property
    def name(self) -> str:
        """Its name in the settings."""

    @property
    def fingerprint(self) -> str:
        """What tells its vectors from those of every other one."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors (texts, dimension); 0 for a text that says nothing."""


FindReader: TypeAlias = Callable[[str, str], TextReader]
"""The reader of a name and fingerprint; raises FailedPrecondition where there is none."""


@dataclass(frozen=True, slots=True)
class TextCode:
    """Which fields make a text, and who reads it."""

    names: tuple[str, ...]
    reader: str
    fingerprint: str
    find: FindReader = field(compare=False, repr=False)
    """Asked when the first text is read: a model serves what needs no reader without one."""

    @classmethod
    def of(cls, names: tuple[str, ...], reader: TextReader) -> TextCode:
        """The code of texts that a reader reads."""
        return cls(names, reader.name, reader.fingerprint, lambda _name, _fingerprint: reader)

    @classmethod
    def unpacked(cls, values: Mapping[str, object], find: FindReader) -> TextCode:
        """The code that `packed` tells of."""
        names, reader, fingerprint = values["names"], values["reader"], values["fingerprint"]
        if not isinstance(names, list):
            raise TypeError("the names of fields are a list")
        return cls(tuple(names), str(reader), str(fingerprint), find)

    @property
    def packed(self) -> Mapping[str, object]:
        """What an artifact keeps."""
        return {"names": self.names, "reader": self.reader, "fingerprint": self.fingerprint}

    def texts(self, table: pa.Table) -> Texts:
        """The texts of the rows of a table, a line for each field that has a value."""
        columns = [table[name].to_pylist() for name in self.names]
        said = np.empty(len(table), object)
        said[:] = [
            "\n".join(value for value in values if value is not None).strip()
            for values in zip(*columns, strict=True)
        ]
        return Texts(said, self)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors (texts, dimension).

        Raises:
            FailedPrecondition: The reader is not installed here, or makes other vectors now.
        """
        return self.find(self.reader, self.fingerprint).encode(texts)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """The texts of rows: of items, say."""

    said: NDArray[np.object_]
    """(rows,): blank where nothing is said."""
    code: TextCode

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """(rows,): which rows say something."""
        return self.said.astype(bool)

    def take(self, rows: NDArray[np.integer]) -> Texts:
        """Some rows, in their order."""
        return Texts(self.said[rows], self.code)

    @property
    def digest(self) -> bytes:
        """What tells these texts, and who reads them, from others."""
        digest = hashlib.sha256(self.code.fingerprint.encode())
        for text in self.said.tolist():
            digest.update(text.encode() + b"\0")
        return digest.digest()

    def vectors(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """The text vectors (n, dimension) of some rows (n,); each text is read once.

        Raises:
            FailedPrecondition: The reader is not installed here, or makes other vectors now.
        """
        said, places = np.unique(self.said[rows], return_inverse=True)
        return self.code.encode(said.tolist())[places]


def joined(parts: Sequence[Texts | None], lengths: Sequence[int]) -> Texts | None:
    """The texts of parts one after the other; what has none says nothing."""
    code = next((part.code for part in parts if part is not None), None)
    if code is None:
        return None
    said = [
        np.full(length, "", object) if part is None else part.said
        for part, length in zip(parts, lengths, strict=True)
    ]
    return Texts(np.concatenate(said), code)
