"""Releases: models made ready to serve, checked, activated and kept up to date."""

from milvine.releases.build import Builder, Order, Progress, Stage
from milvine.releases.collections import collections
from milvine.releases.follow import Follower
from milvine.releases.lifecycle import Releases

__all__ = ["Builder", "Follower", "Order", "Progress", "Releases", "Stage", "collections"]
