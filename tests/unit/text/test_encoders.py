"""Encoders of texts."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from milvine.domain.errors import InvalidArgument
from milvine.text import minilm, text_encoder
from milvine.text.hashing import HashingEncoder

BOOKS = [
    "Harry Potter and the Sorcerer's Stone\nJ.K. Rowling, Mary GrandPré",
    "Harry Potter and the Chamber of Secrets\nJ.K. Rowling, Mary GrandPré",
    "The Art of War\nSun Tzu",
    "Pride and Prejudice\nJane Austen",
]
has_minilm = importlib.util.find_spec(minilm.PACKAGE) is not None
NAMES = [
    "hashing",
    "hashing:512",
    pytest.param(
        "minilm",
        marks=pytest.mark.skipif(not has_minilm, reason="the extra `text` is not installed"),
    ),
]


@pytest.fixture(params=NAMES)
def encoder(request):
    return text_encoder(request.param)


def test_vectors_have_length_one(encoder):
    """Every text is a float32 vector of length 1 and of the encoder's dimension."""
    vectors = encoder.encode(BOOKS)
    assert (vectors.dtype, vectors.shape) == (np.float32, (4, encoder.dimension))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_blank_text_is_zero(encoder):
    """What says nothing has no direction; also among others, and where nothing else is there."""
    vectors = encoder.encode(["", BOOKS[0], " \n"])
    assert not vectors[0].any()
    assert not vectors[2].any()
    assert vectors[1].any()
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_a_batch_changes_nothing(encoder):
    """A text alone and among others has the same vector."""
    together = encoder.encode(BOOKS)
    alone = np.concatenate([encoder.encode([text]) for text in BOOKS])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_texts_of_like_words_are_near(encoder):
    """A book's sequel is nearer to it than other books are, and a query finds its book."""
    vectors = encoder.encode(BOOKS)
    likeness = vectors @ vectors[0]
    assert likeness[1] > max(likeness[2:]) + 0.2
    (query,) = encoder.encode(["jane austen pride"])
    assert int(np.argmax(vectors @ query)) == 3


def test_threads_share_an_encoder(encoder):
    """Many threads at once get what one would."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: encoder.encode(BOOKS), range(8)))
    for one in found:
        np.testing.assert_allclose(one, found[0], atol=1e-6)


def test_hashes_are_the_same_in_every_process():
    """What one process wrote another finds: nothing depends on Python's own hashes."""
    code = (
        "from milvine.text import text_encoder; import sys;"
        f"sys.stdout.write(text_encoder('hashing:64').encode([{BOOKS[0]!r}]).tobytes().hex())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert bytes.fromhex(other.stdout.decode()) == (
        text_encoder("hashing:64").encode(BOOKS[:1]).tobytes()
    )


def test_case_accents_and_misspelling_hardly_count():
    """Letters in another case or with accents are the same; a misspelt name stays near."""
    encoder = HashingEncoder()
    plain, same, misspelt, other = encoder.encode(
        ["GRANDPRE Mary", "grandpré mary", "grandpree mary", "Sun Tzu"]
    )
    np.testing.assert_array_equal(plain, same)
    assert plain @ misspelt > 0.5 > plain @ other + 0.3


def test_what_has_no_word_is_found_by_its_signs():
    """Titles of signs, and scripts without spaces, have vectors too."""
    vectors = HashingEncoder().encode(["!!!", "???", "红楼梦", "红楼梦 曹雪芹"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors[2] @ vectors[3] > 0.5
    assert abs(vectors[0] @ vectors[1]) < 0.5


def test_a_repeated_word_counts_less_each_time():
    """Ten times the same word is not ten times the weight."""
    one, many = HashingEncoder().encode(["war peace", "war " * 100 + "peace"])
    assert one @ many > 0.7


def test_fingerprints_tell_encoders_apart():
    """Vectors of different encoders never share a fingerprint."""
    names = ["hashing", "hashing:512", "hashing:2048"]
    first, second, same_as_first = (text_encoder(name).fingerprint for name in names)
    assert first == same_as_first != second


@pytest.mark.parametrize("name", ["", "bert", "hashing:", "hashing:10", "hashing:9000", "HASHING"])
def test_an_unknown_name_is_refused(name):
    """The error lists what there is."""
    with pytest.raises(ValueError, match="hashing:N for N dimensions from 64 to 8,192, or minilm"):
        text_encoder(name)


def test_a_missing_package_names_the_extra(monkeypatch):
    """Without the extra the error says what to install."""
    monkeypatch.setattr(minilm, "PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(InvalidArgument, match=r"milvine\[text\]"):
        minilm.MiniLmEncoder()
