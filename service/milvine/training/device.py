"""Where training runs."""

from __future__ import annotations

import torch

from milvine.domain.errors import InvalidArgument


def resolve_device(name: str) -> str:
    """The torch device of a setting: `auto` is CUDA where there is one, else the CPU.

    Raises:
        InvalidArgument: There is no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidArgument.at(
            "MILVINE_DEVICE",
            f"there is no {name} that torch can use here; auto takes what there is",
        )
    return name
