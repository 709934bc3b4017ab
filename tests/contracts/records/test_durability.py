"""What survives: restarts, races at the start, kill -9."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from milvine.domain.entity import Entity, Side
from milvine.domain.errors import InvalidArgument
from milvine.records import Records
from milvine.records.schema import METADATA
from tests.contracts.records.conftest import SHOP
from tests.contracts.records.samples import events

OPEN = "import sys; from milvine.records import Records; Records.open(sys.argv[1]).close()"
APPEND = """
import os, signal, sys
from milvine.domain.entity import Entity, Side
from milvine.records import Records
from tests.contracts.records.samples import events
records = Records.open(sys.argv[1])
for n in range(50):
    records.interactions.append("shop", events((f"u{n}", "i", n)))
    records.entities.upsert("shop", Side.ITEM, [Entity(f"i{n}")])
    print(n, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def python(code, url):
    return subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)


def test_everything_is_there_after_a_restart(url):
    """Opening again finds what was written, and migrates nothing twice."""
    with_catalog = Records.open(url)
    with_catalog.catalogs.create(SHOP)
    with_catalog.interactions.append("shop", events(("u", "i", 1)))
    with_catalog.close()
    again = Records.open(url)
    assert again.interactions.count("shop") == 1
    again.close()


def test_the_migrations_make_the_schema(empty):
    """The tables that the migrations make are those that the code speaks of."""
    with empty._database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, METADATA) == []


def test_processes_may_start_together(url):
    """Four processes open an empty database at once; each finds it ready."""
    starters = [python(OPEN, url) for _ in range(4)]
    assert [starter.communicate(timeout=60) and starter.returncode for starter in starters] == [
        0,
        0,
        0,
        0,
    ]


def test_kill_loses_nothing_that_was_acknowledged(url):
    """After SIGKILL every write that had returned is there."""
    records = Records.open(url)
    records.catalogs.create(SHOP)
    with python(APPEND, url) as child:
        acknowledged = len(child.stdout.readlines())
    assert acknowledged == 50
    assert records.interactions.count("shop") == acknowledged
    assert records.entities.count("shop", Side.ITEM) == acknowledged
    records.close()


def test_numbers_of_deleted_catalogs_are_not_used_again(empty):
    """A new catalog never inherits rows that name an old one."""
    for name in ("a", "b"):
        empty.catalogs.create(replace(SHOP, id=name))
        empty.entities.upsert(name, Side.ITEM, [Entity("x")])
        with empty._database.read() as connection:
            number = connection.exec_driver_sql("SELECT max(number) FROM catalogs").scalar_one()
        assert number == {"a": 1, "b": 2}[name]
        empty.catalogs.delete(name, force=True)


@pytest.mark.parametrize("bad", ["", "nonsense", "mysql://x/y", "sqlite://", "postgresql://"])
def test_other_urls_are_refused(bad):
    """The error says what a URL must look like."""
    with pytest.raises(InvalidArgument, match="must be sqlite:///FILE or postgresql://"):
        Records.open(bad)
