"""Artifacts: trained models in a folder or an object store, complete or absent.

An artifact is a folder of its own: `weights.safetensors` with the arrays and the item ids, and
`model.json`, written last and removed first, which holds a document and the digest of both. What
has no `model.json` does not exist.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import save_file

from milvine.artifacts import safetensors_map
from milvine.artifacts.checkpoints import CheckpointFile
from milvine.artifacts.place import Place
from milvine.domain.errors import DataLoss
from milvine.domain.operation import Json
from milvine.threads import Threads

FORMAT = 1
_LOADERS = 2
_WEIGHTS = "weights.safetensors"
_MANIFEST = "model.json"
_ID_OFFSETS, _ID_BYTES = "item_ids.offsets", "item_ids.bytes"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A trained model as it is stored."""

    item_ids: pa.StringArray
    """A row each."""
    tensors: Mapping[str, NDArray[np.generic]]
    """By name; read-only, mapped from the file."""
    document: Json


class Artifacts:
    """The artifacts under one URL."""

    def __init__(self, url: str, *, timeout_s: float = 300.0) -> None:
        """Take a folder's path or an fsspec URL; each call ends within the timeout.

        Raises:
            InvalidArgument: When nothing that is installed knows such a URL.
        """
        self._place = Place(url, timeout_s)
        self._files = self._place.files
        self.loaders = Threads("load", _LOADERS)
        """Where coroutines load: an object store may take minutes, and others need threads."""

    def close(self) -> None:
        """Wait for loads that coroutines began."""
        self.loaders.close()

    def save(
        self,
        model_id: str,
        tensors: Mapping[str, NDArray[np.generic]],
        item_ids: pa.Array | Sequence[str],
        document: Json,
    ) -> None:
        """Store an artifact, in place of what the id had; raises Unavailable."""
        arrays = {name: np.require(array, requirements="C") for name, array in tensors.items()}
        arrays |= _packed(
            item_ids if isinstance(item_ids, pa.Array) else pa.array(item_ids, pa.string())
        )
        self._place.within_deadline(lambda: self._save(model_id, arrays, document))

    def load(self, model_id: str) -> Artifact:
        """The artifact of a model.

        Raises:
            DataLoss: When it is missing, damaged, or of a newer format.
            Unavailable: When the store does not answer.
        """
        return self._place.within_deadline(lambda: self._load(model_id))

    def delete(self, model_id: str) -> None:
        """Remove an artifact; one that does not exist is no error."""
        self._place.within_deadline(lambda: self._delete(model_id))

    def exists(self, model_id: str) -> bool:
        """Whether the artifact of a model is complete."""
        return self._place.within_deadline(
            lambda: bool(self._files.exists(self._place.path(model_id, _MANIFEST)))
        )

    def checkpoint(self, folder: str, name: str, *, stamp: str) -> CheckpointFile:
        """Where a fit keeps its state; `delete` removes all of a folder.

        Args:
            folder: The folder that it shares with the other fits of its work.
            name: The name of the fit.
            stamp: What the state goes with; one of another stamp is not loaded.
        """
        return CheckpointFile(self._place, folder, name, stamp)

    def _save(
        self, model_id: str, arrays: Mapping[str, NDArray[np.generic]], document: Json
    ) -> None:
        self._delete(model_id)
        self._files.makedirs(self._place.path(model_id), exist_ok=True)
        with self._place.writable(self._place.path(model_id, _WEIGHTS)) as weights:
            save_file(dict(arrays), weights)
            digest = _digest(weights)
        manifest = {"format": FORMAT, "weights_sha256": digest, "document": document}
        manifest["document_sha256"] = _text_digest(document)
        part = self._place.path(model_id, _MANIFEST + ".part")
        self._files.pipe_file(part, json.dumps(manifest, indent=1).encode())
        self._files.mv(part, self._place.path(model_id, _MANIFEST))

    def _load(self, model_id: str) -> Artifact:
        manifest = self._manifest(model_id)
        try:
            with self._place.local(self._place.path(model_id, _WEIGHTS)) as weights:
                if _digest(weights) != manifest["weights_sha256"]:
                    raise _damaged(model_id, "its weights do not have the digest that was stored")
                arrays = safetensors_map.read(weights)
        except FileNotFoundError as exc:
            raise _damaged(model_id, "its weights are missing") from exc
        item_ids = _unpacked(arrays.pop(_ID_OFFSETS), arrays.pop(_ID_BYTES))
        return Artifact(item_ids, arrays, manifest["document"])

    def _manifest(self, model_id: str) -> Json:
        try:
            manifest: Json = json.loads(self._files.cat_file(self._place.path(model_id, _MANIFEST)))
            sound = manifest["document_sha256"] == _text_digest(manifest["document"])
            version = manifest["format"]
        except FileNotFoundError as exc:
            raise _damaged(model_id, "it does not exist") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise _damaged(model_id, "its document is not readable") from exc
        if version != FORMAT:
            raise _damaged(model_id, f"its format {version} is not format {FORMAT}")
        if not sound:
            raise _damaged(model_id, "its document does not have the digest that was stored")
        return manifest

    def _delete(self, model_id: str) -> None:
        for name in (_MANIFEST, _WEIGHTS):
            if self._files.exists(path := self._place.path(model_id, name)):
                self._files.rm_file(path)
        if self._files.exists(folder := self._place.path(model_id)):
            self._files.rm(folder, recursive=True)


def _packed(ids: pa.StringArray) -> dict[str, NDArray[np.generic]]:
    """Ids as two arrays: their bytes end to end, and where each begins."""
    texts = ids.to_numpy(zero_copy_only=False)
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return {_ID_OFFSETS: offsets, _ID_BYTES: np.frombuffer(b"".join(encoded), np.uint8)}


def _unpacked(offsets: NDArray[np.generic], data: NDArray[np.generic]) -> pa.StringArray:
    starts = pa.py_buffer(offsets.astype(np.int32))
    return pa.StringArray.from_buffers(len(offsets) - 1, starts, pa.py_buffer(data.tobytes()))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text_digest(document: Json) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _damaged(model_id: str, what: str) -> DataLoss:
    return DataLoss(f"the artifact of model {model_id!r} can't be used: {what}; train again")
