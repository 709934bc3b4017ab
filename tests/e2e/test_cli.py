"""The command line against a real server: the main job as a person types it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from milvine.cli import main
from tests.servers.milvine import MilvineServer
from tests.servers.milvus import free_ports
from tests.unit.cli.test_app import ALL

GENRES = ("Drama", "Comedy", "Sci-Fi")
ITEMS, USERS = 60, 30
CATALOG = {
    "catalog_id": "films",
    "item_fields": [
        {"name": "title", "type": "STRING", "embed_text": True},
        {"name": "year", "type": "INT64"},
        {"name": "genres", "type": "STRING_LIST"},
    ],
    "user_fields": [{"name": "age", "type": "INT64"}],
    "event_types": [{"name": "watch"}],
}
TRAIN = ("--family", "als", "--set", "embedding_size=8", "--set", "epochs=4")

TUNE = (
    *("films", "--family", "als", "--set", "epochs=1", "--range", "embedding_size=2:8:log"),
    *("--choice", "regularization=0.001,0.01", "--trials", "3"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files to import: each user watches one genre."""
    made = tmp_path_factory.mktemp("cli")
    (made / "catalog.json").write_text(json.dumps(CATALOG))
    items = [(f"i{n}", f"Film {n}", 1970 + n, GENRES[n % 3]) for n in range(ITEMS)]
    users = [(f"u{n}", 20 + n) for n in range(USERS)]
    # Every user leaves out some films of the genre, which are there to be recommended.
    events = [
        (f"u{u}", f"i{i}", 1_700_000_000 + i)
        for u in range(USERS)
        for i in range(u % 3, ITEMS, 3)
        if (u + i) % 4
    ]
    write(made / "items.csv", ("id", "title", "year", "genres"), items)
    write(made / "users.csv", ("id", "age"), users)
    write(made / "events.csv", ("user_id", "item_id", "event_time"), events)
    return made


def write(path, header, rows):
    """Write a CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture(scope="module")
def environment(folder):
    """Where the server keeps its data; a port at which nothing listens."""
    (port,) = free_ports(1)
    return {"MILVINE_DATA_DIR": str(folder / "data"), "MILVINE_PORT": str(port)}


@pytest.fixture(scope="module")
def filled(folder, environment):
    """A server with the imported files and a published model."""
    server = MilvineServer(folder)
    server.start()
    env = environment | {"MILVINE_SERVER": server.address}
    assert call(env, "catalogs", "create", folder / "catalog.json")["catalog_id"] == "films"
    for kind, file in (("items", "items"), ("users", "users"), ("interactions", "events")):
        report = call(env, "import", kind, "films", folder / f"{file}.csv")
        assert report["read"] == report["written"] > 0
    call(env, "train", "films", *TRAIN)
    call(env, "publish", "--latest", "films")
    yield env
    assert server.stop() == 0


def invoke(env, *arguments):
    """Run a command in this process."""
    return CliRunner().invoke(main, [*map(str, arguments)], env=env)


def call(env, *arguments):
    """The document that a command prints with --json, and nothing but it."""
    result = invoke(env, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


SPOKEN = {
    "audience": ("films", "i0"),
    "catalogs create": ("-",),
    "catalogs update": ("-",),
    "catalogs list": (),
    "catalogs show": ("films",),
    "catalogs delete": ("spoken",),
    "config": (),
    "history": ("films", "u0"),
    "models": ("films",),
    "operations": (),
    "popular": ("films", "--half-life", "7d", "--event-type", "watch"),
    "rank": ("films", "i0", "i1", "--user", "u0"),
    "recommend": ("films", "--user", "u0"),
    "releases": ("films",),
    "search": ("films", "a film"),
    "similar": ("films", "--user", "u0"),
}
"""Commands beside those that the fixture calls and the processes, and what each is asked."""


def test_every_command_prints_one_document(filled, folder):
    """With --json every command prints one JSON document, and nothing else, on stdout."""
    spoken = json.dumps(CATALOG | {"catalog_id": "spoken"})
    asked = SPOKEN | {"recommend-all": ("films", "--out", folder / "spoken.parquet")}
    for name, arguments in asked.items():
        words = [*name.split(), *map(str, arguments), "--json"]
        result = CliRunner().invoke(main, words, env=filled, input=spoken)
        assert result.exit_code == 0, result.output
        assert isinstance(json.loads(result.stdout), dict)
    model = call(filled, "models", "films")["models"][-1]["model_id"]
    of_model = {"evaluate": (model,), "compare": (model, model), "curve": (model,), "tune": TUNE}
    for name, arguments in of_model.items():
        asked[name] = arguments
        assert isinstance(call(filled, name, *arguments), dict)
    called = {*asked, *(f"import {kind}" for kind in ("items", "users", "interactions"))}
    assert called | {"train", "publish", "serve", "worker"} == {" ".join(path) for path in ALL}


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("words", [("worker",), ("serve", "--no-worker", "--port", "0")])
def test_processes_print_one_line(environment, words):
    """With --json a process prints one line as it starts, and ends well when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "milvine", *words, "--json"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (rest, process.returncode) == ("", 0)


def test_trained_models_are_measured(filled):
    """A model tells its settings and its metrics beside popularity's, for people as well."""
    # The latest film of a genre is everyone's latest, so that nobody is left to learn it from.
    model = call(filled, "train", "films", *TRAIN, "--cutoffs", "5", "--holdout", "random")
    assert model["config"]["als"]["epochs"] == 4
    assert len(model["epochs"]) == 4
    evaluation = model["evaluation"]
    assert [metrics["cutoff"] for metrics in evaluation["model"]] == [5]
    assert evaluation["model"][0]["recall"] > evaluation["popularity"][0]["recall"]
    shown = invoke(filled, "train", "films", *TRAIN).stdout
    assert "als @10" in shown
    assert "popularity @20" in shown


def test_a_model_is_trained_in_several_processes(filled):
    """As many train as `--processes` says, and a family that can't says which can."""
    settings = ("--set", "embedding_size=4", "--set", "epochs=2", "--processes", "2")
    model = call(filled, "train", "films", "--family", "softmax_mf", *settings)
    assert len(model["epochs"]) == 2
    refused = invoke(filled, "train", "films", *TRAIN, "--processes", "2")
    assert refused.exit_code == 1
    assert "process_count: must be 1 for als, is 2" in refused.stderr


def test_settings_are_searched_for_and_trained(filled):
    """Every trial is told, the model has the best settings, and people see the best first."""
    both = call(filled, "tune", *TUNE, "--train", "--name", "Tuned")
    trials, best = both["tuning"]["trials"], both["tuning"]["best_trial"]
    assert [trial["number"] for trial in trials] == [1, 2, 3]
    assert best["value"] == max(trial["value"] for trial in trials)
    model = both["model"]
    assert model["display_name"] == "Tuned"
    assert model["config"]["als"].items() >= {**best["settings"], "epochs": 1}.items()
    shown = invoke(filled, "tune", *TUNE)
    assert "ndcg@20" in shown.stdout
    assert "milvine train films --family als --set epochs=1 --set embedding_size=" in shown.stdout
    refused = invoke(filled, "tune", "films", "--family", "als", "--range", "embedding_size=8:2")
    assert refused.exit_code == 1
    assert "space[0].range.high: must be over low" in refused.stderr


def test_the_curve_of_a_model_is_shown_and_drawn(filled, folder):
    """Both fits are told epoch by epoch, and drawn where a file is named."""
    model = call(filled, "train", "films", *TRAIN)["model_id"]
    told = call(filled, "curve", model, "--png", folder / "curve.png")
    for name in ("epochs", "holdout_epochs"):
        assert [epoch["epoch"] for epoch in told[name]] == [1, 2, 3, 4]
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert "without what is held out" in invoke(filled, "curve", model).stdout


def test_a_live_index_is_measured(filled, folder):
    """What users did after a training measures the model as it is, and the index beside it."""
    (folder / "went_on.json").write_text(json.dumps(CATALOG | {"catalog_id": "went_on"}))
    call(filled, "catalogs", "create", folder / "went_on.json")
    call(filled, "import", "interactions", "went_on", folder / "events.csv")
    model = call(filled, "train", "went_on", *TRAIN)["model_id"]
    asked = ("evaluate", model, "--holdout", "after", "--live")
    refused = invoke(filled, *asked)
    assert refused.exit_code == 1
    assert f"milvine publish {model}" in refused.stderr
    call(filled, "publish", model)
    later = [
        (f"u{u}", f"i{i}", 1_800_000_000) for u in range(USERS) for i in range(u % 3, ITEMS, 3)
    ]
    write(folder / "later.csv", ("user_id", "item_id", "event_time"), later)
    call(filled, "import", "interactions", "went_on", folder / "later.csv")
    evaluation = call(filled, *asked)["evaluation"]
    assert not evaluation["fitted_anew"]
    assert evaluation["live"]["index_recall"] == 1.0
    assert evaluation["model"][0]["recall"] > evaluation["popularity"][0]["recall"]
    assert "live @10" in invoke(filled, *asked).stdout


def test_models_are_compared(filled):
    """Models that were measured alike stand side by side; of others, it is said and not marked."""
    first, second = (
        call(filled, "train", "films", *TRAIN, "--set", f"embedding_size={size}")["model_id"]
        for size in (2, 8)
    )
    alike = call(filled, "compare", first, second)
    assert alike["measured_otherwise"] == []
    by_name = {row["name"]: row for row in alike["rows"]}
    assert by_name["dimensions"]["best"] == first
    told = call(filled, "evaluate", second, "--holdout", "random", "--fraction", "0.3")
    assert told["evaluation"]["fitted_anew"]
    assert call(filled, "compare", first, second)["measured_otherwise"] == [second]
    shown = invoke(filled, "compare", first, second)
    assert "recall@10" in shown.stdout
    assert second in shown.stderr


def test_recommendations_match_the_filter(filled):
    """Recommendations carry fields and obey a filter with parameters, best first."""
    filter_ = 'year >= {year} and array_contains(genres, "Drama")'
    found = call(
        *(filled, "recommend", "films", "--user", "u0", "-k", "3"),
        *("--filter", filter_, "--param", "year=1990", "--fields", "year,genres"),
    )
    hits = found["hits"]
    assert len(hits) == 3
    assert all(hit["fields"]["year"] >= 1990 for hit in hits)
    assert all(hit["fields"]["genres"] == ["Drama"] for hit in hits)
    assert [hit["score"] for hit in hits] == sorted((h["score"] for h in hits), reverse=True)
    assert not found["is_popular"]


def test_recommendations_are_ranked(filled):
    """Boosts raise what matches with its parameter, decays and diversity pass, caps hold."""
    asked = ("recommend", "films", "--user", "u0", "-k", "6")
    ranked = call(
        *(filled, *asked, "--boost", "100:year >= {from}", "--param", "from=1985"),
        *("--decay", "year:1985:1000", "--diversity", "1", "--cap", "genres=2"),
    )["hits"]

    genres = [genre for hit in ranked for genre in hit["fields"]["genres"]]
    assert max(genres.count(genre) for genre in genres) == 2
    assert ranked[0]["fields"]["year"] >= 1985
    wrong = invoke(filled, *asked, "--boost", "2:yaer > 1")
    assert wrong.exit_code == 1
    assert "ranking.boosts[0].filter" in wrong.stderr


@pytest.mark.parametrize(
    "command",
    [("recommend", "films", "--user", "u0"), ("similar", "films", "--item", "i0")],
)
def test_a_list_goes_on_by_its_token(filled, command):
    """The token that --json shows leads to the next page, in the release that is named."""
    first = call(filled, *command, "-k", "3")
    release = first["release_id"]

    second = call(filled, *command, "-k", "2", "--page-token", first["next_page_token"])

    whole = call(filled, *command, "-k", "5", "--release", release)
    shown = [hit["id"] for hit in first["hits"] + second["hits"]]
    assert shown == [hit["id"] for hit in whole["hits"]]
    assert second["release_id"] == whole["release_id"] == release


def test_people_are_told_why_a_list_is_short_or_popular(filled):
    """A short list and one of popular items say so."""
    short = invoke(filled, "recommend", "films", "--user", "u0", "--filter", "year == 1970")
    assert "of 10: no more items of the release match" in short.stdout
    alike = invoke(filled, "similar", "films", "--item", "i0", "--filter", "year < 1973")
    assert "2 of 10: no more items of the release match" in alike.stdout
    popular = invoke(filled, "recommend", "films", "--user", "nobody")
    assert "most popular" in popular.stdout


def test_popular_items_trend(filled):
    """What is popular has its count, by all time or lately, and a bad half-life is told."""
    ever = call(filled, "popular", "films", "-k", "3", "--fields", "year")["hits"]
    assert [hit["score"] for hit in ever] == sorted((h["score"] for h in ever), reverse=True)
    assert all(hit["score"] == int(hit["score"]) and hit["fields"]["year"] for hit in ever)
    lately = call(filled, "popular", "films", "--half-life", "1s", "-k", "3")["hits"]
    assert int(lately[0]["id"][1:]) > ITEMS - 4
    assert "count" in invoke(filled, "popular", "films").stdout
    wrong = invoke(filled, "popular", "films", "--half-life", "7 days")
    assert wrong.exit_code == 2
    assert "such as 90m" in wrong.stderr


def test_a_history_gets_recommendations(filled):
    """Whoever watched comedies gets comedies, without an id, and not those."""
    found = call(filled, "recommend", "films", "--history", "i1,i4,i7", "-k", "5")
    assert all(hit["fields"]["genres"] == ["Comedy"] for hit in found["hits"])
    assert not {hit["id"] for hit in found["hits"]} & {"i1", "i4", "i7"}
    typed = call(filled, "recommend", "films", "--history", "i1", "--event-type", "watch")
    assert typed["hits"]
    unknown = invoke(filled, "recommend", "films", "--history", "i1", "--event-type", "wach")
    assert "declared are: watch" in unknown.stderr


def test_a_taste_gets_recommendations_with_reasons(filled):
    """Who likes comedies and not dramas gets comedies; people read why, machines all of it."""
    taste = ("films", "--like", "i1", "--like", "i4=2", "--dislike", "i0")
    found = call(filled, "recommend", *taste, "-k", "5", "--explain")
    assert {"i0", "i1", "i4"}.isdisjoint(hit["id"] for hit in found["hits"])
    for hit in found["hits"]:
        assert {item for item, _ in hit["explanation"]["contributions"]} == {"i0", "i1", "i4"}
    shown = invoke(filled, "recommend", *taste, "-k", "5", "--explain").stdout
    assert "because of" in shown
    both = invoke(filled, "recommend", *taste, "--user", "u0")
    assert both.exit_code == 2
    assert "only one of them" in both.stderr


def test_named_items_are_ranked(filled):
    """Items are put into the order of their scores; what the release does not have is named."""
    user = ("--user", "u0")
    best = [hit["id"] for hit in call(filled, "recommend", "films", *user, "-k", "4")["hits"]]
    found = call(filled, "rank", "films", *reversed(best), "nope", *user)
    assert [hit["id"] for hit in found["hits"]] == best
    assert found["missing_ids"] == ["nope"]
    told = invoke(filled, "rank", "films", "i1", "nope", *user, "--explain").stdout
    assert "does not have: nope" in told
    assert "because of" in told
    stranger = invoke(filled, "rank", "films", "i1", "--user", "nobody").stdout
    assert "ranked by popularity" in stranger


def test_an_item_finds_its_audience(filled):
    """The users of an item did not have it, unless they are asked for."""
    item = call(filled, "recommend", "films", "--user", "u0", "-k", "1")["hits"][0]["id"]
    found = call(filled, "audience", "films", item, "-k", "500")
    assert "u0" in [hit["id"] for hit in found["hits"]]
    assert found["is_short"]
    everyone = call(filled, "audience", "films", item, "-k", "500", "--include-seen")
    assert len(everyone["hits"]) > len(found["hits"])
    assert "have not had it" in invoke(filled, "audience", "films", item, "-k", "500").stdout
    assert "no vector of item 'nope'" in invoke(filled, "audience", "films", "nope").stderr


def test_neighbours_are_alike(filled):
    """Similar items share the genre, similar users the taste."""
    items = call(filled, "similar", "films", "--item", "i2", "-k", "4")
    assert all(hit["fields"]["genres"] == ["Sci-Fi"] for hit in items["hits"])
    users = call(filled, "similar", "films", "--user", "u2", "-k", "4", "--filter", "age < 40")
    assert all(int(hit["id"][1:]) % 3 == 2 for hit in users["hits"])


def test_titles_are_searched(filled):
    """The film of that title comes first; for someone, those of the taste do."""
    found = call(
        filled, "search", "films", "film 17", "--filter", "year < {to}", "--param", "to=1990"
    )
    assert found["hits"][0]["id"] == "i17"
    assert found["hits"][0]["fields"]["title"] == "Film 17"
    suited = call(
        filled, "search", "films", "a film", "--user", "u2", "--weights", "0", "1", "--exclude-seen"
    )
    assert suited["hits"]
    assert all(int(hit["id"][1:]) % 3 == 2 for hit in suited["hits"][:3])
    short = invoke(filled, "search", "films", "film", "--filter", "year < 1972")
    assert "2 of 10" in short.stdout
    assert "query: must not be blank" in invoke(filled, "search", "films", " ").stderr


def test_history_joins_titles(filled):
    """A history is the latest first, with the fields of the items."""
    found = call(filled, "history", "films", "u0", "-k", "2", "--fields", "title")
    first, second = found["interactions"]
    assert first["event_time"] > second["event_time"]
    assert first["fields"]["title"].startswith("Film ")
    assert found["count"] > 2


def test_releases_roll_back(filled):
    """--rollback makes the release before the active one again, and it shows."""
    before = active(filled)
    published = call(filled, "publish", "--latest", "films")
    assert active(filled) == published["release_id"] != before
    assert call(filled, "releases", "films", "--rollback")["release_id"] == before
    assert active(filled) == before
    deleted = call(filled, "releases", "films", "--delete", published["release_id"])
    assert deleted == {"deleted": published["release_id"]}
    nowhere = invoke(filled, "releases", "films", "--rollback")
    assert nowhere.exit_code == 1
    assert "no release to go back to" in nowhere.stderr


def active(env):
    """The release that serves."""
    return call(env, "catalogs", "show", "films")["active_release_id"]


def test_operations_are_listed(filled):
    """Past work is listed with its kind and outcome."""
    found = call(filled, "operations")["operations"]
    assert {row["name"].split("/")[0] for row in found} == {"operations"}
    assert all(row["done"] for row in found)
    assert "PublishModel" in invoke(filled, "operations").stdout


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_a_bad_filter_is_one_line_with_its_column(filled, json_option):
    """A filter that names an unknown field says the column and a field that there is."""
    result = invoke(
        *(filled, "recommend", "films", "--user", "u0"),
        *("--filter", "year > 1990 and yeer < 3", *json_option),
    )
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "column 17" in line
    assert "year" in line
    if json_option:
        error = json.loads(result.stdout)["error"]
        assert error["reason"] == "INVALID_FILTER"
        assert error["metadata"] == {"column": "17"}


@pytest.mark.usefixtures("filled")
def test_a_command_brings_its_own_server(environment):
    """Without a server at the configured address a command runs one, says so, and leaves none."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MILVINE_")} | environment
    arguments = ["recommend", "films", "--user", "u1", "-k", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "milvine", *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert len(json.loads(done.stdout)["hits"]) == 2
    assert len(done.stderr.splitlines()) == 1
    assert "using one inside this command" in done.stderr


def test_an_interrupted_training_is_cancelled(filled):
    """Ctrl-C cancels the training, says so, and ends with 130."""
    arguments = ["train", "films", "--family", "als", "--set", "epochs=1000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "milvine", *arguments, "--set", "embedding_size=1024"],
        env=os.environ | filled,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: under_way(filled))
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Cancelled operations/" in told
    assert "Traceback" not in told
    wait_until(lambda: not under_way(filled))
    latest = call(filled, "operations")["operations"][0]
    assert latest["error"]["code"] == 1


def wait_until(is_so):
    """Wait for something that another process does."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline


def under_way(env):
    """Whether an operation is."""
    return [row for row in call(env, "operations")["operations"] if not row["done"]]
