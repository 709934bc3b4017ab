"""Reading safetensors files as memory maps, which the library itself copies into NumPy.

The format: the length of the header in 8 bytes, little-endian; a JSON header with the type, shape
and place of each tensor; the tensors.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TYPES = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "I32": np.int32,
    "I64": np.int64, "F16": np.float16, "F32": np.float32, "F64": np.float64,
}  # fmt: skip


def read(path: Path) -> dict[str, NDArray[np.generic]]:
    """The tensors of a file by name, read-only; the file must be one that `save_file` wrote."""
    whole = np.memmap(path, np.uint8, mode="r")
    start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    header = json.loads(whole[8:start].tobytes())
    return {
        name: whole[start + place["data_offsets"][0] : start + place["data_offsets"][1]]
        .view(_TYPES[place["dtype"]])
        .reshape(place["shape"])
        for name, place in header.items()
        if name != "__metadata__"
    }
