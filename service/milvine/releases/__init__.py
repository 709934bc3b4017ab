"""Releases: models made ready to serve, checked, activated and kept up to date."""

from milvine.releases.build import Builder
from milvine.releases.follow import Follower
from milvine.releases.lifecycle import Releases
from milvine.releases.live import LiveItems, live_items_of
from milvine.releases.sweep import Sweeper

__all__ = ["Builder", "Follower", "LiveItems", "Releases", "Sweeper", "live_items_of"]
