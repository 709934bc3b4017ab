"""Artifacts: where trained models are kept."""
