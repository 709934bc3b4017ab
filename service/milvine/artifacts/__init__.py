"""Artifacts: where trained models are kept."""

from milvine.artifacts.checkpoints import CheckpointFile
from milvine.artifacts.store import Artifact, Artifacts

__all__ = ["Artifact", "Artifacts", "CheckpointFile"]
