"""`milvine import`: files into the records, straight, with a report of every row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import click
from rich.console import RenderableType

from milvine.cli.bars import file_bar
from milvine.cli.command import Command, Local, local
from milvine.cli.configuration import load_settings, masked
from milvine.cli.output import Column, number, table
from milvine.cli.pairs import PAIR, texts
from milvine.domain.catalog import Catalog
from milvine.domain.entity import Side
from milvine.ingest import (
    Format,
    ImportReport,
    Progress,
    Source,
    TimeFormat,
    import_entities,
    import_interactions,
)
from milvine.records import Records

Show: TypeAlias = Callable[[Progress], None]
Import: TypeAlias = Callable[[Records, Catalog, Source, Show, Path | None], ImportReport]

_TAB = {"tab": "\t", "\\t": "\t"}
_OPTIONS = (
    click.argument("catalog"),
    click.argument("file", type=click.Path(path_type=Path)),
    click.option(
        "--map",
        "mapping",
        type=PAIR,
        multiple=True,
        metavar="OURS=THEIRS",
        help="Fill our column from the file's; else columns of the same name are taken.",
    ),
    click.option(
        "--set",
        "constants",
        type=PAIR,
        multiple=True,
        metavar="OURS=TEXT",
        help="Fill our column with a text, as event_type=view.",
    ),
    click.option(
        "--format",
        "format_",
        type=click.Choice([str(name) for name in Format], case_sensitive=False),
        help="The format; told by the name when not given.",
    ),
    click.option("--delimiter", metavar="CHARACTER", help="What stands between cells."),
    click.option(
        "--quote",
        default='"',
        show_default=True,
        metavar="CHARACTER",
        help="What surrounds cells that have delimiters or line ends in them.",
    ),
    click.option("--no-quote", is_flag=True, help="Quotes have no meaning in the file."),
    click.option("--columns", metavar="A,B,…", help="The columns of a file without a header."),
    click.option(
        "--list-separator",
        default="|",
        show_default=True,
        metavar="TEXT",
        help="What stands between the elements of a list.",
    ),
    click.option(
        "--time-format",
        type=click.Choice([str(name) for name in TimeFormat]),
        default=str(TimeFormat.AUTO),
        show_default=True,
        help="How times are written.",
    ),
    click.option(
        "--rejects",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write every refused row there: CSV by its name, else JSON lines.",
    ),
)


@dataclass(frozen=True, slots=True)
class ImportArgs:
    """What `milvine import …` was asked."""

    catalog: str
    file: Path
    mapping: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, str], ...]
    format_: str | None
    delimiter: str | None
    quote: str
    no_quote: bool
    columns: str | None
    list_separator: str
    time_format: str
    rejects: Path | None

    def source(self) -> Source:
        """The file, and how to read it."""
        return Source(
            self.file,
            format=Format(self.format_.upper()) if self.format_ else None,
            mapping=texts(self.mapping),
            constants=texts(self.constants),
            delimiter=_TAB.get(self.delimiter, self.delimiter) if self.delimiter else None,
            quote=None if self.no_quote else self.quote,
            column_names=tuple(self.columns.split(",")) if self.columns else (),
            time_format=TimeFormat(self.time_format),
            list_separator=self.list_separator,
        )


@click.group("import")
def import_() -> None:
    """Import a CSV, TSV, JSONL or Parquet file, plain or compressed.

    Writes straight to the database of the records (MILVINE_RECORDS_URL, or the embedded one), so it
    must run where that is reached. Importing a file again writes nothing twice.
    """


def _command(name: str, summary: str, run: Import) -> None:
    @local(ImportArgs)
    def body(here: Local, args: ImportArgs) -> None:
        report = _run(here, args, run)
        here.output.show(_document(report), *_views(report))

    command: Command = body
    for option in reversed(_OPTIONS):
        command = option(command)
    import_.command(name, help=summary)(command)


def _run(here: Local, args: ImportArgs, run: Import) -> ImportReport:
    settings = load_settings()
    if not settings.records_url:
        settings.make_data_dir()
    here.output.note(f"Writing to {masked(settings.records)}")
    records = Records.open(settings.records, timeout_s=settings.records_timeout_s)
    try:
        catalog = records.catalogs.get(args.catalog)
        with file_bar(here.output.err) as bar:
            task = bar.add_task(args.file.name, total=None, rows=0)

            def show(progress: Progress) -> None:
                bar.update(
                    task,
                    total=progress.bytes_total,
                    completed=progress.bytes_done,
                    rows=progress.read,
                )

            return run(records, catalog, args.source(), show, args.rejects)
    finally:
        records.close()


def _interactions(
    records: Records, catalog: Catalog, source: Source, show: Show, rejects: Path | None
) -> ImportReport:
    return import_interactions(records, catalog, source, on_progress=show, rejects_path=rejects)


def _entities(side: Side) -> Import:
    def run(
        records: Records, catalog: Catalog, source: Source, show: Show, rejects: Path | None
    ) -> ImportReport:
        return import_entities(
            records, catalog, side, source, on_progress=show, rejects_path=rejects
        )

    return run


_command(
    "interactions",
    "Import interactions: user_id, item_id, event_type, value, event_time, event_id.",
    _interactions,
)
_command("items", "Import items: id (or item_id) and the declared fields.", _entities(Side.ITEM))
_command("users", "Import users: id (or user_id) and the declared fields.", _entities(Side.USER))


def _document(report: ImportReport) -> dict[str, object]:
    reasons = [
        {"column": column, "reason": reason, "count": count}
        for (column, reason), count in report.reasons.items()
    ]
    counts = {
        name: getattr(report, name)
        for name in ("read", "written", "duplicates", "rejected", "blank", "ignored_columns")
    }
    return {**counts, "reasons": reasons, "samples": [asdict(row) for row in report.samples]}


def _views(report: ImportReport) -> list[RenderableType]:
    counts = (report.read, report.written, report.duplicates, report.rejected)
    names = ("read", "written", "duplicates", "rejected")
    views: list[RenderableType] = [
        table([number(name) for name in names], [[f"{count:,}" for count in counts]])
    ]
    if report.reasons:
        reasons = ((f"{n:,}", column, reason) for (column, reason), n in report.reasons.items())
        rows = ((row.row, row.column, row.text) for row in report.samples)
        views += [
            table([number("rows"), Column("column"), Column("why refused")], reasons),
            table([number("row"), Column("column"), Column("what stands there")], rows),
        ]
    if report.ignored_columns:
        views.append(f"Columns that fill nothing: {', '.join(report.ignored_columns)}")
    return views
