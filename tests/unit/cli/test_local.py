"""Commands that call no server: the settings, and files into the records."""

from __future__ import annotations

import json
import socket

import pytest
from click.testing import CliRunner

from milvine.cli import main
from milvine.cli.configuration import masked
from milvine.domain.catalog import Catalog, EventType, Field, FieldType
from milvine.records import Records
from milvine.settings import Settings, joined


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Embedded stores in a fresh folder, which is also the working one."""
    monkeypatch.chdir(tmp_path)
    return {"MILVINE_DATA_DIR": str(tmp_path / "data")}


def run(environment, *arguments):
    """Run a command with that environment."""
    return CliRunner().invoke(main, [*map(str, arguments)], env=environment)


def test_config_says_where_settings_come_from(environment, tmp_path):
    """`config` tells variables, the .env file and defaults apart."""
    (tmp_path / ".env").write_text("MILVINE_HOST=0.0.0.0\n")
    result = run(environment, "config", "--json")
    origins = json.loads(result.stdout)["origins"]
    assert origins["MILVINE_DATA_DIR"] == "environment"
    assert origins["MILVINE_HOST"] == ".env"
    assert origins["MILVINE_PORT"] == "default"


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_config_masks_secrets(environment, json_option):
    """No secret of the settings is printed."""
    secrets = {
        "MILVINE_RECORDS_URL": "postgresql://milvine:hunter2@db/milvine?sslmode=require",
        "MILVINE_VECTORS_TOKEN": "root:hunter2",
        "MILVINE_ARTIFACTS_URL": "s3://bucket/path?secret=hunter2&region=eu",
    }
    result = run(environment | secrets, "config", *json_option)
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    assert "postgresql://milvine:***@db" in result.stdout


def test_a_password_may_have_any_character():
    """Everything up to the last @ of a URL is the password."""
    assert masked("postgresql://u:a@b:c@host/db") == "postgresql://u:***@host/db"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MILVINE_PORT", "70000"),
        ("MILVINE_LOG_LEVEL", "loud"),
        ("MILVINE_DEVICE", "gpu"),
        ("MILVINE_TEXT_ENCODER", "hashing:7"),
        ("MILVINE_VECTORS_URI", "milvus:19530"),
        ("MILVINE_TLS_CERT_FILE", "chain.pem"),
        ("MILVINE_TLS_KEY_FILE", "key.pem"),
    ],
)
def test_a_wrong_setting_is_named(environment, name, value):
    """A setting out of its range is told by its variable, in one line."""
    result = run(environment | {name: value}, "config")
    assert result.exit_code == 1
    assert name in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_log_level_may_be_written_in_capitals(environment):
    """MILVINE_LOG_LEVEL=INFO is what other programs call it."""
    result = run(environment | {"MILVINE_LOG_LEVEL": "INFO"}, "config", "--json")
    assert json.loads(result.stdout)["settings"]["MILVINE_LOG_LEVEL"] == "info"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"MILVINE_DEVICE": "cuda:99"}, "MILVINE_DEVICE"),
        ({"MILVINE_ARTIFACTS_URL": "foo://bucket/path"}, "MILVINE_ARTIFACTS_URL"),
        ({"MILVINE_RECORDS_URL": "mysql://u:hunter2@host/db"}, "MILVINE_RECORDS_URL"),
        ({"MILVINE_TLS_CERT_FILE": "a.pem", "MILVINE_TLS_KEY_FILE": "b.pem"}, "a.pem"),
        ({"MILVINE_TLS_CERT_FILE": ".env", "MILVINE_TLS_KEY_FILE": ".env"}, "in PEM"),
        ({"MILVINE_DATA_DIR": ".env/data"}, "MILVINE_DATA_DIR"),
    ],
)
def test_a_server_that_can_never_serve_ends_with_one_line(environment, tmp_path, given, named):
    """What only another setting can mend ends the server, named, and no fault of milvine's."""
    (tmp_path / ".env").touch()
    result = run(environment | given | {"MILVINE_LOG_LEVEL": "error"}, "serve", "--port", 0)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert named in line
    assert "fault of milvine" not in line
    assert "hunter2" not in result.stderr


def test_a_taken_metrics_port_is_said_in_one_line(environment):
    """A server that can't serve its metrics says where."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(environment, "serve", "--no-worker", "--port", 0, "--metrics-port", port)
    assert result.exit_code == 1
    assert f"MILVINE_METRICS_PORT: can't listen at 127.0.0.1:{port}" in result.stderr


def test_addresses_of_ipv6_have_brackets():
    """The colons of IPv6 do not hide the port."""
    assert joined("::1", 50051) == "[::1]:50051"
    assert joined("127.0.0.1", 50051) == "127.0.0.1:50051"


def test_a_taken_port_is_said_in_one_line(environment):
    """A server that can't listen says where, not in grpc's words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(environment, "serve", "--no-worker", "--port", port)
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.stderr
    assert "GRPC" not in result.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ('{"catalog_id": "films", "fields": []}', 'no field named "fields"'),
        ("[]", "is not a Catalog message"),
        ('{"item_fields": [{"name": "year", "type": "NUMBER"}]}', "TYPE_NUMBER"),
    ],
)
def test_a_bad_declaration_is_refused_before_any_call(environment, tmp_path, text, said):
    """A file that is no Catalog is told in one line with its name."""
    file = tmp_path / "catalog.json"
    file.write_text(text)
    result = run(environment, "catalogs", "create", file)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "catalog.json" in result.stderr


@pytest.fixture
def catalog(environment, tmp_path, monkeypatch):
    """A catalog in the embedded records."""
    monkeypatch.setenv("MILVINE_DATA_DIR", environment["MILVINE_DATA_DIR"])
    (tmp_path / "data").mkdir()
    records = Records.open(Settings().records)
    declared = Catalog(
        "films",
        (EventType("view"), EventType("buy")),
        item_fields=(Field("year", FieldType.INT64), Field("genres", FieldType.STRING_LIST)),
    )
    records.catalogs.create(declared)
    yield records
    records.close()


@pytest.mark.usefixtures("catalog")
def test_import_maps_sets_and_reports(environment, tmp_path):
    """Columns are mapped and set; every refused row is counted, reasoned and written out."""
    (tmp_path / "log.csv").write_text("who,what,extra\nu1,i1,x\nu2,,x\nu1,i2,x\n")
    result = run(
        *(environment, "import", "interactions", "films", "log.csv", "--json"),
        *("--map", "user_id=who", "--map", "item_id=what", "--set", "event_type=buy"),
        *("--rejects", "refused.jsonl"),
    )
    report = json.loads(result.stdout)
    assert (report["read"], report["written"], report["rejected"]) == (3, 2, 1)
    assert report["reasons"][0]["column"] == "item_id"
    assert report["samples"][0]["row"] == 3
    assert report["ignored_columns"] == ["extra"]
    assert len((tmp_path / "refused.jsonl").read_text().splitlines()) == 1


def test_quoting_can_be_turned_off(environment, tmp_path, catalog):
    """--no-quote takes quotes as text; --quote names another character."""
    (tmp_path / "a.csv").write_text('id,year\n"a",1\n')
    (tmp_path / "b.csv").write_text("id,year\n'b,c',1\n")
    assert run(environment, "import", "items", "films", "a.csv", "--no-quote").exit_code == 0
    assert run(environment, "import", "items", "films", "b.csv", "--quote", "'").exit_code == 0
    found = catalog.entities.get("films", "item", ['"a"', "b,c"])
    assert [item.id for item in found] == ['"a"', "b,c"]


def test_import_shows_tables(environment, tmp_path, catalog):
    """People get the counts and the reasons as tables."""
    (tmp_path / "items.csv").write_text("id,year,genres\ni1,1990,a b\ni2,never,c\n")
    result = run(environment, "import", "items", "films", "items.csv", "--list-separator", " ")
    assert result.exit_code == 0
    assert "rejected" in result.stdout
    assert "never" in result.stdout
    assert catalog.entities.get("films", "item", ["i1"])[0].fields["genres"] == ("a", "b")


@pytest.mark.usefixtures("catalog")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("users", "nowhere", "items.csv"), "nowhere"),
        (("items", "films", "missing.csv"), "missing.csv"),
        (("items", "films", "items.csv", "--map", "year=yeer"), "yeer"),
    ],
)
def test_import_errors_are_one_line(environment, tmp_path, arguments, said):
    """What can't be imported at all is said in one line, with exit code 1."""
    (tmp_path / "items.csv").write_text("id,year\ni1,1990\n")
    result = run(environment, "import", *arguments)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert said in result.stderr
    assert "Traceback" not in result.stderr
