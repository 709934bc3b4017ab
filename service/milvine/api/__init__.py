"""The gRPC edge: requests into use cases, and their answers and errors back."""

from milvine.api.server import SERVICE_NAMES, build_server
from milvine.api.services import Services

__all__ = ["SERVICE_NAMES", "Services", "build_server"]
