"""Checkpoints: what fits need to go on after a stop, kept beside the artifacts for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from milvine.artifacts.place import Place
from milvine.domain.errors import Unavailable

log = structlog.get_logger(__name__)

_STAMP = "stamp"


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """The state of one fit in one file, which each save replaces.

    It saves work and is no truth: where it can't be written the fit goes on without it, and where
    it can't be read, or is of other work, the fit begins anew.
    """

    place: Place
    folder: str
    name: str
    stamp: str
    """What the state goes with: a digest of the data, the settings and the device."""

    def load(self) -> Mapping[str, NDArray[np.generic]] | None:
        """What was saved last for this work; None where there is nothing."""
        try:
            return self.place.within_deadline(self._load)
        except Unavailable as fault:
            log.warning("cannot read a checkpoint", name=self.folder, error=str(fault))
            return None

    def save(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Keep a state in place of the last."""
        try:
            self.place.within_deadline(lambda: self._save(state))
        except Unavailable as fault:
            log.warning("cannot keep a checkpoint", name=self.folder, error=str(fault))

    def _load(self) -> Mapping[str, NDArray[np.generic]] | None:
        if not self.place.files.exists(self._path):
            return None
        with self.place.local(self._path) as path:
            return _read(path, self.stamp)

    def _save(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        self.place.files.makedirs(self.place.path(self.folder), exist_ok=True)
        arrays = {name: np.require(array, requirements="C") for name, array in state.items()}
        with self.place.replacing(self._path) as path:
            save_file(arrays, path, {_STAMP: self.stamp})

    @property
    def _path(self) -> str:
        return self.place.path(self.folder, f"{self.name}.safetensors")


def _read(path: Path, stamp: str) -> Mapping[str, NDArray[np.generic]] | None:
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get(_STAMP) != stamp:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError:
        return None
