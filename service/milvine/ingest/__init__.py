"""Bulk import: files of interactions, items and users, with a report of what became of each row."""

from milvine.ingest.entities import import_entities
from milvine.ingest.interactions import import_interactions
from milvine.ingest.report import ImportReport, Progress, Refusal
from milvine.ingest.source import Format, Source, TimeFormat

__all__ = [
    "Format",
    "ImportReport",
    "Progress",
    "Refusal",
    "Source",
    "TimeFormat",
    "import_entities",
    "import_interactions",
]
