# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Opening tables for a source: local files, folders and data sets of the Hub, by split.

Each opened split gets a column `_row` with the position of its rows, such as `train-12`, for
sources without ids of their own.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, Features, IterableDataset, Value, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from pandas.errors import ParserError

ROW = "_row"
SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
}
COMPRESSIONS = (".gz", ".bz2", ".xz")

Table = Dataset | IterableDataset
Paths = str | Path | Sequence[str | Path]


def open_tables(
    data: Paths | Mapping[str, Paths],
    *,
    streaming: bool = False,
    file_format: str | None = None,
    quoting: bool = True,
    config: str | None = None,
    revision: str | None = None,
) -> dict[str, Table]:
    """Open the splits of a data set.

    Files are assigned to splits by their names (`train.jsonl.gz`, `uspto-valid.csv`); all are one
    split `all` if no name says a split. Cells of local CSV and TSV files stay text as written, so
    that ids keep their zeros and a column's type does not depend on its first rows. A data set on
    the Hub keeps its splits and types; one without splits is `train` there.

    Args:
        data: a file, several, a folder of files, `{split: files}`, or the id of a data set on the
            Hub, such as `"user/name"`. Files may be compressed (.gz, .bz2, .xz).
        streaming: read rows when they are asked for, instead of converting all files first.
        file_format: `"csv"`, `"tsv"`, `"json"` or `"parquet"`, where the suffix does not say it.
        quoting: whether quotation marks enclose fields of CSV and TSV files.
        config: configuration of a data set on the Hub.
        revision: branch, tag or commit of a data set on the Hub.

    Returns:
        Rows by split, with the names `train`, `validation`, `test`, or `all`.

    Raises:
        FileNotFoundError: there is no such file, folder or data set.
        ValueError: the files' formats are unknown or mixed, only some names say a split, or a file
            cannot be read.
    """
    if _is_on_hub(data):
        tables = _open_hub(str(data), config, revision, streaming)
    else:
        tables = {
            split: _open_files(paths, streaming, file_format, quoting)
            for split, paths in find_files(data, file_format).items()
        }
    return {split: number_rows(table, split) for split, table in tables.items()}


def split_name(name: str) -> str | None:
    """`train`, `validation` or `test` for one of the usual spellings, otherwise None."""
    return SPLITS.get(str(name).strip().lower())


def find_files(
    data: Paths | Mapping[str, Paths], file_format: str | None = None
) -> dict[str, list[Path]]:
    """The local files of each split; see `open_tables`."""
    if isinstance(data, Mapping):
        return {
            split_name(split) or str(split): sum(find_files(paths, file_format).values(), [])
            for split, paths in data.items()
        }
    files = []
    for path in [data] if isinstance(data, str | Path) else data:
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: name a file, a folder or a Hub id.")
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and _suffix(p) in FORMATS)
            if not inside:
                raise FileNotFoundError(
                    f"The folder {path} has no file ending in {', '.join(FORMATS)}."
                )
            files += inside
        else:
            files.append(path)
    splits: dict[str | None, list[Path]] = {}
    for path in files:
        splits.setdefault(_split_of_file(path), []).append(path)
    unclear = splits.pop(None, [])
    if not splits:
        return {"all": unclear}
    if unclear:
        raise ValueError(
            f"{', '.join(p.name for p in unclear)}: the name says no split, but those of other "
            "files do. Pass {'train': …, 'validation': …, 'test': …}."
        )
    order = ("train", "validation", "test")
    return {split: splits[split] for split in order if split in splits}


def number_rows(table: Table, split: str) -> Table:
    """Add the column `_row`, `<split>-<position>`; call it before rows are filtered.

    Workers that share a stream would each count from 0: number it in one process.
    """
    if isinstance(table, Dataset):
        return table.add_column(ROW, [f"{split}-{i}" for i in range(len(table))])
    return table.map(_add_row, with_indices=True, fn_kwargs={"split": split})


def column_names(table: Table) -> list[str]:
    """Names of a table's columns, without `_row`."""
    # A stream of JSON does not know them before its first row.
    names = table.column_names or list(next(iter(table), {}))
    return [name for name in names if name != ROW]


def check_columns(tables: Mapping[str, Table], wanted: Iterable[str]) -> None:
    """Make sure that every split has the columns.

    Raises:
        ValueError: one is missing; the message names those there are, and the nearest.
    """
    for split, table in tables.items():
        names = column_names(table)
        for column in wanted:
            if column not in names:
                raise ValueError(
                    f"Split {split!r} has no column {column!r}{nearest(column, names)} "
                    f"Its columns: {', '.join(map(repr, names))}."
                )


def find_column(tables: Mapping[str, Table], aliases: Sequence[str], what: str) -> str:
    """The first of several names that is a column of every split, whatever its case.

    Raises:
        ValueError: none is.
    """
    column = find_optional_column(tables, aliases)
    if column is None:
        names = column_names(next(iter(tables.values())))
        shown = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
        raise ValueError(
            f"No column for the {what}: expected {' or '.join(map(repr, aliases))}, found {shown}. "
            "Rename it, or read the file with training.data.table."
        )
    return column


def find_optional_column(tables: Mapping[str, Table], aliases: Sequence[str]) -> str | None:
    """As `find_column`, but None where there is none."""
    names = [column_names(table) for table in tables.values()]
    for alias in aliases:
        for column in names[0]:
            if column.strip().lower() == alias.lower() and all(column in other for other in names):
                return column
    return None


def nearest(name: str, names: Iterable[str]) -> str:
    """`: did you mean 'smiles'?` where one of the names is similar, otherwise `.`."""
    by_lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f": did you mean {by_lower[close[0]]!r}?" if close else "."


def _add_row(row: dict, index: int, split: str) -> dict:
    return {ROW: f"{split}-{index}"}


def _is_on_hub(data: Paths | Mapping[str, Paths]) -> bool:
    if not isinstance(data, str) or Path(data).exists():
        return False
    return re.fullmatch(r"[\w.-]+/[\w.-]+", data) is not None and _suffix(Path(data)) not in FORMATS


def _open_hub(name: str, config: str | None, revision: str | None, streaming: bool) -> dict:
    try:
        tables = load_dataset(name, config, revision=revision, streaming=streaming)
    except DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"{name!r} is neither a file or folder here nor a data set that the Hub lets you read."
        ) from error
    except ConnectionError as error:
        raise ConnectionError(
            f"{name!r} is no file or folder here, and the Hub cannot be asked for it: {error}"
        ) from error
    return {split_name(split) or split: table for split, table in tables.items()}


def _open_files(
    paths: Sequence[Path], streaming: bool, file_format: str | None, quoting: bool
) -> Table:
    formats = {file_format or FORMATS.get(_suffix(path)) for path in paths}
    if len(formats) != 1 or None in formats:
        raise ValueError(
            f"{', '.join(p.name for p in paths)}: files of one split must all end in one of "
            f"{', '.join(FORMATS)}; for other names give the format."
        )
    kind = formats.pop()
    options = {}
    if kind in ("csv", "tsv"):
        options = {"sep": "," if kind == "csv" else "\t", "quoting": 0 if quoting else 3}
        for path in paths:
            _check_width(path, options)
        names = pd.read_csv(paths[0], nrows=0, **options).columns
        options["features"] = Features({name: Value("string") for name in names})
        # Otherwise the text NA or null would be a gap.
        options["keep_default_na"] = False
        kind = "csv"
    files = [str(path.resolve()) for path in paths]
    try:
        return load_dataset(kind, data_files=files, split="train", streaming=streaming, **options)
    except DatasetGenerationError as error:
        raise _unreadable(paths, error.__cause__ or error) from error


def _check_width(path: Path, options: Mapping[str, Any]) -> None:
    """Refuse a first row with more cells than the header.

    pandas notices later ones, but here it would take the first cell for an index and move all
    others by one column.
    """
    try:
        pd.read_csv(path, header=None, nrows=2, **options)
    except ParserError as error:
        raise _unreadable([path], error) from error


def _unreadable(paths: Sequence[Path], error: BaseException) -> ValueError:
    names = ", ".join(path.name for path in paths)
    reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
    hint = " A cell with a comma in it needs quotation marks." if "saw" in reason else ""
    return ValueError(f"{names} cannot be read: {reason}.{hint}")


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _split_of_file(path: Path) -> str | None:
    """The split that a word of the name says; None for none or two."""
    stem = path.name.split(".")[0]
    found = {split_name(word) for word in re.split(r"[^A-Za-z]+", stem)} - {None}
    return found.pop() if len(found) == 1 else None
