"""Encoders of texts, behind one interface."""

from milvine.text.base import TextEncoder
from milvine.text.encoders import check_name, same_encoder, text_encoder

__all__ = ["TextEncoder", "check_name", "same_encoder", "text_encoder"]
