"""Where training runs."""

from __future__ import annotations

import torch


def resolve_device(name: str) -> str:
    """The torch device of a setting: `auto` is CUDA where there is one, else the CPU."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
