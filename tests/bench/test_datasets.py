"""The data sets and settings that benchmarks run on."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.bench import datasets
from tests.bench.quality import figures, settings_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set in LightGCN's format, of a name that has no settings of its own."""
    for name, lines in (("train", "u1 a b\nu2 b c\n"), ("test", "u1 c d\nu2 a\nu3\n")):
        with gzip.open(tmp_path / f"{name}.txt.gz", "wt") as file:
            file.write(lines)
    return tmp_path


def test_reads_a_line_a_user(folder: Path):
    """A line is a user and their items; a user without test items is not measured."""
    split = datasets.read(folder)
    assert split.train.to_pydict() == {
        "user_id": ["u1", "u1", "u2", "u2"],
        "item_id": ["a", "b", "b", "c"],
    }
    assert split.held_out == {"u1": {"c", "d"}, "u2": {"a"}}
    assert split.items == 4


def test_measures_by_the_protocol(folder: Path):
    """Recall divides by the test items, and NDCG's ideal list is no longer than they are."""
    split = datasets.read(folder)
    assert figures(split, [["c", "d"], ["b", "a"]]) == {
        "recall@20": 1.0,
        "ndcg@20": pytest.approx((1 + 1 / 1.584963) / 2, abs=1e-6),
    }


def test_reads_a_sequence_a_user(tmp_path: Path):
    """The last item is found, the one before is read only, and the others are learned from."""
    with gzip.open(tmp_path / "sequences.txt.gz", "wt") as file:
        file.write("u1 a b c d\nu2 c a b\n")
    split = datasets.read(tmp_path)
    assert split.train.to_pydict() == {"user_id": ["u1", "u1", "u2"], "item_id": ["a", "b", "c"]}
    assert split.folded_in.to_pydict() == {"user_id": ["u1", "u2"], "item_id": ["c", "a"]}
    assert split.held_out == {"u1": {"d"}, "u2": {"b"}}
    assert split.items == 4
    assert figures(split, [["b", "d"], ["a"]]) == {
        "hr@10": 0.5,
        "ndcg@10": pytest.approx(0.5 / 1.584963, abs=1e-6),
    }


def test_reads_ratings(tmp_path: Path):
    """A fifth of each reader's books are held out; those of these that were liked are found."""
    lines = [f"b{book},u{user},{1 + book % 5}" for user in range(2) for book in range(10)]
    lines += ["b0,u0,5", "b1,u2,5"]  # u0's b0 stands twice; u2 has too few
    with gzip.open(tmp_path / "ratings.csv.gz", "wt") as file:
        file.write("\n".join(["book_id,user_id,rating", *lines]))
    with gzip.open(tmp_path / "books.csv.gz", "wt") as file:
        file.write("id,title\n")

    split = datasets.read(tmp_path)

    assert {user: len(held) for user, held in split.foretold.items()} == {"u0": 2, "u1": 2}
    assert len(split.train) == 17
    given = {(row["user_id"], row["item_id"]): row["rating"] for row in split.train.to_pylist()}
    held = {(user, item): r for user, own in split.foretold.items() for item, r in own.items()}
    assert not given.keys() & held.keys()
    assert (given | held)["u0", "b0"] == 5
    assert {(user, item) for user, own in split.held_out.items() for item in own} == {
        pair for pair, rating in held.items() if rating >= 4
    }
    assert datasets.read(tmp_path).foretold == split.foretold


def test_names_the_files_that_are_missing(tmp_path: Path):
    """A folder that no reader knows is refused with what it must have."""
    with pytest.raises(FileNotFoundError, match=r"train\.txt\.gz and test\.txt\.gz"):
        datasets.read(tmp_path)


def test_takes_the_settings_of_the_format(folder: Path):
    """A data set without settings of its own takes those tuned on one of its format."""
    split = datasets.read(folder)
    assert settings_for(folder, split, "als") == settings_for(Path("gowalla"), split, "als")
    assert settings_for(folder, split, "unknown_family") == {}
