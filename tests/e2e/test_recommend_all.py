"""`milvine recommend-all` against a server: a whole file, or none."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from milvine.cli import main
from milvine.client import Client, Interaction, Item
from tests.servers.milvine import MilvineServer

LONG_S = 120.0
USERS, ITEMS = 40, 60
ADDED = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
FIELDS = {
    "title": "STRING",
    "year": "INT64",
    "score": "DOUBLE",
    "free": "BOOL",
    "added": "TIMESTAMP",
    "genres": "STRING_LIST",
    "tags": "INT64_LIST",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server with a published catalog."""
    running = MilvineServer(tmp_path_factory.mktemp("recommend_all"))
    running.start()
    asyncio.run(fill(running.address))
    yield running.address
    assert running.stop() == 0


async def fill(address: str) -> None:
    """Write, train and publish; the last user has nothing that the model learned from."""
    async with Client(address) as client:
        await client.create_catalog("films", event_types=["view", "skip"], item_fields=FIELDS)
        await client.upsert_items("films", [item(n) for n in range(ITEMS)])
        views = [
            Interaction(f"u{u:02}", f"i{(u + k) % ITEMS}", "view")
            for u in range(USERS - 1)
            for k in range(8)
        ]
        await client.record("films", [*views, Interaction("zoe", "i1", "skip")])
        training = await client.train("films", als={"embedding_size": 4}, event_types=["view"])
        model = await training.result(LONG_S)
        await (await client.publish(model.model_id)).result(LONG_S)


def item(n: int) -> Item:
    """An item with a value of each type; every third has none."""
    if n % 3 == 0:
        return Item(f"i{n}")
    values = (f"Film {n}", 1980 + n, n / 4, n % 2 == 0, ADDED, ["a", "b"], [n, 2**60])
    return Item(f"i{n}", dict(zip(FIELDS, values, strict=True)))


def invoke(server, *arguments):
    """Run a command in this process."""
    return CliRunner().invoke(
        main, [*map(str, arguments), "--json"], env={"MILVINE_SERVER": server}
    )


def test_every_user_is_in_the_file(server, tmp_path):
    """A row a hit, in the order of users and ranks, typed as declared; the summary counts them."""
    out = tmp_path / "found.parquet"
    done = invoke(server, "recommend-all", "films", "--out", out, "-n", 4, "--fields", "*")
    assert done.exit_code == 0, done.output
    told, rows = json.loads(done.stdout), pq.read_table(out)
    one = invoke(server, "recommend", "films", "--user", "u07", "-k", 4)

    assert (told["users"], told["rows"]) == (USERS, USERS * 4)
    assert told["release_id"] == json.loads(one.stdout)["release_id"]
    assert rows["user_id"].to_pylist() == sorted(rows["user_id"].to_pylist())
    assert rows["rank"].to_pylist() == [1, 2, 3, 4] * USERS
    of_one = rows.filter(pa.compute.equal(rows["user_id"], "u07")).to_pylist()
    assert [row["item_id"] for row in of_one] == [h["id"] for h in json.loads(one.stdout)["hits"]]
    assert {row["source"] for row in of_one} == {"PERSONAL"}
    assert set(rows["source"][-4:].to_pylist()) == {"POPULAR"}
    for row in rows.to_pylist():
        written = item(int(row["item_id"][1:])).fields
        assert {name: row[column(name)] for name in FIELDS} == {
            name: written.get(name) for name in FIELDS
        }
    assert rows.schema.field("added").type == pa.timestamp("us", "UTC")
    assert rows.schema.field("tags").type == pa.list_(pa.int64())


def column(name: str) -> str:
    """The column of a field; a hit has a score of its own."""
    return "item_score" if name == "score" else name


def test_a_filter_and_its_values(server, tmp_path):
    """Every row matches the filter; without fields there are the five columns only."""
    out = tmp_path / "found.parquet"
    given = ("--filter", "year >= {from}", "--param", "from=2015", "--include-seen")

    done = invoke(server, "recommend-all", "films", "--out", out, *given)

    assert done.exit_code == 0, done.output
    rows = pq.read_table(out)
    assert rows.column_names == ["user_id", "rank", "item_id", "score", "source"]
    assert {int(i[1:]) for i in rows["item_id"].to_pylist()} == {
        n for n in range(35, USERS - 1 + 7) if n % 3
    }


@pytest.mark.parametrize(
    "arguments",
    [("films", "--filter", "year >"), ("nowhere",), ("films", "--fields", "nothing")],
)
def test_what_fails_leaves_the_old_file(server, tmp_path, arguments):
    """A failed run changes nothing, and leaves nothing behind."""
    out = tmp_path / "found.parquet"
    out.write_text("old")

    done = invoke(server, "recommend-all", *arguments, "--out", out)

    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"]
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_place_that_can_t_be_written(server, tmp_path):
    """The error names the option."""
    done = invoke(server, "recommend-all", "films", "--out", tmp_path / "no folder" / "x.parquet")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["violations"][0]["field"] == "--out"
