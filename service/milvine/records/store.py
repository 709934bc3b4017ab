"""The records: everything that milvine knows for certain, in one SQL database."""

from __future__ import annotations

from milvine.records.catalogs import Catalogs
from milvine.records.database import Database, connect
from milvine.records.entities import Entities
from milvine.records.erasure import Erasures
from milvine.records.interactions import Interactions
from milvine.records.keys import Keys
from milvine.records.leases import Leases
from milvine.records.migrate import migrate
from milvine.records.models import Models
from milvine.records.operations import Operations
from milvine.records.releases import Releases
from milvine.records.strays import Strays
from milvine.threads import Threads

_WRITERS = 4


class Records:
    """An open database. Calls block; any thread may make them.

    Every call raises Unavailable when the database does not answer or is kept busy by others, and
    DeadlineExceeded when a statement takes longer than the timeout. Both may be tried again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.writers = Threads("write", _WRITERS)
        """Where coroutines write: SQLite has one writer, and those that wait for their turn must
        leave threads to readers."""
        self.marks = database.marks
        self.catalogs = Catalogs(database)
        self.entities = Entities(database)
        self.interactions = Interactions(database)
        self.erasures = Erasures(database)
        self.models = Models(database)
        self.releases = Releases(database)
        self.operations = Operations(database)
        self.leases = Leases(database)
        self.strays = Strays(database)
        self.keys = Keys(database)

    @classmethod
    def open(cls, url: str, *, timeout_s: float = 10.0) -> Records:
        """Connect to a database, and bring its tables up to date.

        Args:
            url: `sqlite:///FILE`, which is made if need be, or `postgresql://...`.
            timeout_s: how long to wait for a connection, a lock or a statement, in seconds.

        Raises:
            InvalidArgument: the URL is neither.
            Unavailable: the database does not answer.
        """
        database = connect(url, timeout_s=timeout_s)
        try:
            migrate(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        """Wait for writers, and close every connection."""
        self.writers.close()
        self._database.close()

    def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            Unavailable: there is none.
        """
        with self._database.read() as connection:
            connection.exec_driver_sql("SELECT 1")
