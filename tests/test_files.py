# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Opening tables: formats, splits by name, row numbers, columns that are not there."""

import gzip
import json
import pickle
from pathlib import Path

import pytest
from datasets import Dataset
from huggingface_hub.constants import HF_HUB_OFFLINE

from training.data.files import check_columns, column_names, open_tables
from training.data.source import RowError, cell, needed, needed_text, number

pytestmark = pytest.mark.usefixtures("datasets_cache")
ROWS = [{"id": "007", "smiles": "CCO"}, {"id": "NA", "smiles": 'C"C'}]


def write(path: Path) -> Path:
    """Write `ROWS` in the format that the name says."""
    suffixes = path.suffixes
    if ".parquet" in suffixes:
        Dataset.from_list(ROWS).to_parquet(path)
        return path
    if suffixes[0] == ".json":
        text = json.dumps(ROWS)
    elif suffixes[0] == ".jsonl":
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
    else:
        tab = "," if suffixes[0] == ".csv" else "\t"
        text = f'id{tab}smiles\n007{tab}CCO\nNA{tab}"C""C"\n'
    path.write_bytes(gzip.compress(text.encode()) if suffixes[-1] == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "json", "jsonl", "jsonl.gz", "parquet"])
def test_formats_keep_text_as_it_is(tmp_path: Path, suffix: str, streaming: bool):
    tables = open_tables(write(tmp_path / f"rows.{suffix}"), streaming=streaming)
    assert list(tables) == ["all"]
    assert column_names(tables["all"]) == ["id", "smiles"]
    expected = [row | {"_row": f"all-{i}"} for i, row in enumerate(ROWS)]
    assert list(tables["all"]) == expected


def test_a_late_decimal_or_gap_does_not_change_a_column(tmp_path: Path):
    values = ["1"] * 20_000 + ["0.5", ""]
    (tmp_path / "rows.csv").write_text("x,y\n" + "".join(f"C,{value}\n" for value in values))
    assert open_tables(tmp_path / "rows.csv")["all"]["y"][-3:] == ["1", "0.5", ""]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["uspto-train.csv", "uspto-valid.csv", "uspto_TEST.csv"], ["train", "validation", "test"]),
        (["dev.csv", "training.csv"], ["train", "validation"]),
        (["latest.csv"], ["all"]),
        (["test-or-train.csv"], ["all"]),
    ],
)
def test_splits_by_file_name(tmp_path: Path, names: list[str], splits: list[str]):
    for name in names:
        write(tmp_path / name)
    (tmp_path / "README.md").write_text("no table")
    assert list(open_tables(tmp_path)) == splits
    assert list(open_tables([tmp_path / name for name in names])) == splits


def test_splits_named_by_the_caller(tmp_path: Path):
    path = write(tmp_path / "test.csv")
    tables = open_tables({"valid": path, "all": [path, path]})
    assert {split: len(rows) for split, rows in tables.items()} == {"validation": 2, "all": 4}


def test_files_that_cannot_be_opened(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nothing.csv does not exist"):
        open_tables(tmp_path / "nothing.csv")
    with pytest.raises(FileNotFoundError, match="has no file ending in .csv"):
        open_tables(tmp_path)
    write(tmp_path / "train.csv")
    write(tmp_path / "more.csv")
    with pytest.raises(ValueError, match="more.csv: the name says no split"):
        open_tables(tmp_path)
    with pytest.raises(ValueError, match="must all end in one of .csv"):
        open_tables([write(tmp_path / "a.csv"), write(tmp_path / "b.tsv")])
    (tmp_path / "rows.txt").write_text("smiles\nC\n")
    with pytest.raises(ValueError, match="rows.txt.*give the format"):
        open_tables(tmp_path / "rows.txt")
    assert len(open_tables(tmp_path / "rows.txt", file_format="csv")["all"]) == 1


@pytest.mark.parametrize("rows", ["1,C,2\n2,CC,0,345\n", "1,C,0,345\n2,CC,0,2\n", "1,C,2,\n"])
def test_more_cells_than_columns_are_never_moved_or_dropped(tmp_path: Path, rows: str):
    path = tmp_path / "rows.csv"
    path.write_text("id,smiles,y\n" + rows)
    line = 3 if rows.startswith("1,C,2\n") else 2
    with pytest.raises(
        ValueError, match=rf"rows\.csv .*Expected 3 fields in line {line}, saw 4\..*"
    ):
        open_tables(path)


@pytest.mark.skipif(not HF_HUB_OFFLINE, reason="would ask the Hub")
def test_a_folder_that_may_be_a_hub_id():
    with pytest.raises(ConnectionError, match="'data/mine' is no file or folder here"):
        open_tables("data/mine")


def test_a_missing_column_names_the_nearest(tmp_path: Path):
    tables = open_tables(write(tmp_path / "rows.csv"))
    check_columns(tables, ["id", "smiles"])
    with pytest.raises(ValueError, match=r"'SMILE': did you mean 'smiles'\? Its.*'id', 'smiles'"):
        check_columns(tables, ["SMILE"])


def test_cells():
    row = {"a": " CCO ", "b": " ", "c": float("nan"), "d": 0, "e": None}
    assert [cell(row, name) for name in "abcdef"] == ["CCO", None, None, 0, None, None]
    assert needed(row, "d") == 0
    with pytest.raises(RowError, match="column 'b' holds ' ': is empty"):
        needed(row, "b")
    with pytest.raises(RowError, match="is of type int, not text"):
        needed_text(row, "d")
    assert number("-1e-3", "y") == -0.001
    for value in ("high", "nan", "inf", None):
        with pytest.raises(RowError, match="number"):
            number(value, "y")
    error = pickle.loads(pickle.dumps(RowError("y", 3, "is odd")))
    assert (error.column, error.value, error.reason) == ("y", 3, "is odd")
