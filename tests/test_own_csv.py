# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A user's own CSV with twelve broken rows, through the prepare command."""

import csv
import json
from functools import partial
from pathlib import Path

import datasets
import pytest
import yaml
from datasets import load_from_disk
from own_csv import BROKEN, REPEATED, ROWS, write_own_csv
from rich.console import Console

from training import prepare

README = Path(__file__).parents[1] / "README.md"
# By the line of the file: column, value (None for a long one) and a part of the reason.
REASONS = {
    12: ("SMILES", "c1ccc(cc1", "extra open parentheses"),
    27: ("SMILES", "CC(=O)N(C)(C)C", "valence for atom # 3 N, 4, is greater than permitted"),
    41: ("SMILES", "", "is empty"),
    58: ("logP", "", "is empty"),
    66: ("logP", "2,13", "write the decimals behind a point, not a comma"),
    83: ("logP", "inf", "is not a finite number"),
    97: ("logP", "1.94 mg/L", "write the number alone, without a unit"),
    104: ("SMILES", "CCO CC", "contains blanks"),
    120: ("SMILES", "C" * 300, "300 heavy atoms, more than max_atoms=256"),
    139: ("logP", "", "is empty"),
    155: ("prompt", None, "tokens, more than max_length=256"),
    178: ("logP", "N/A", "is not a number"),
}


@pytest.fixture
def recipe(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_own_csv(tmp_path / "logp.csv")
    source = {
        "source": "table",
        "name": "logp",
        "data": str(tmp_path / "logp.csv"),
        "task": "property_prediction",
        "molecule": "SMILES",
        "answer": "logP",
        "id": "compound",
        "properties": {"logp": {"description": "octanol-water logP", "decimals": 2}},
    }
    settings = {
        "sources": [source],
        "split": {"method": "random", "sizes": {"validation": 10, "test": 20}},
        "base": str(tiny_base),
        "max_length": 256,
    }
    path = tmp_path / "logp.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def read_rejected(path: Path) -> dict[int, dict]:
    """The rejections by the line of the CSV file."""
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({entry["row"] for entry in entries}) == len(entries)
    return {entry["row"] + 1: entry for entry in entries}  # the header is line 1


def test_each_broken_row_is_rejected_and_no_other(recipe: str, tmp_path: Path, capsys):
    prepare.main([recipe, "--output_dir", str(tmp_path / "data"), "--max_rejected", "0.1"])
    rejected = read_rejected(tmp_path / "data" / "rejected.jsonl")
    assert rejected.keys() == BROKEN.keys() == REASONS.keys()
    with (tmp_path / "logp.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == ROWS
    for line, (column, value, reason) in REASONS.items():
        entry = rejected[line]
        assert entry["id"] == rows[line - 2]["compound"]
        assert (entry["source"], entry["column"]) == ("logp", column)
        assert reason in entry["reason"]
        assert value is None or entry["value"] == value

    # Nothing is lost without a word: all others are there, with their own values.
    data = load_from_disk(str(tmp_path / "data"))
    kept = {row["id"]: row["answer"] for split in data.values() for row in split}
    good = [row for line, row in enumerate(rows, start=2) if line not in BROKEN]
    assert kept == {row["compound"]: f"{float(row['logP']):.2f}" for row in good}
    assert sum(map(len, data.values())) + len(rejected) == ROWS

    # The same molecule measured twice is no error, but lies in one split.
    twice = {rows[0]["compound"], rows[REPEATED - 2]["compound"]}
    assert any(twice <= set(split["id"]) for split in data.values())

    out = capsys.readouterr().out
    assert "write the decimals behind a point" in " ".join(out.replace("│", " ").split())
    assert "One example: logp, property_prediction" in out


def test_six_percent_stop_the_run_unless_allowed(recipe: str, tmp_path: Path, capsys):
    flags = [recipe, "--output_dir", str(tmp_path / "data")]
    with pytest.raises(SystemExit, match=r"12 of 200 examples were rejected \(6\.0%\), .*=0\.05"):
        prepare.main(flags)
    assert not (tmp_path / "data").exists()
    assert read_rejected(tmp_path / "data.rejected.jsonl").keys() == BROKEN.keys()
    assert "Rejected rows" in capsys.readouterr().out
    prepare.main([*flags, "--max_rejected", "0.06"])
    assert not (tmp_path / "data.rejected.jsonl").exists()


def test_strict_stops_at_the_first(recipe: str, tmp_path: Path):
    with pytest.raises(SystemExit, match=r"row 11 .*column 'SMILES' holds 'c1ccc\(cc1'.*strict"):
        prepare.main([recipe, "--output_dir", str(tmp_path / "data"), "--strict"])
    assert not (tmp_path / "data").exists()


def test_the_readme_shows_what_is_printed(
    tiny_base: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    readme = README.read_text(encoding="utf-8").split("## Your own data")[1]
    recipe = yaml.safe_load(readme.split("```yaml\n")[1].split("```")[0])
    table = readme.split("```\nRejected rows")[1].split("```")[0]
    lines = readme.split("```json\n")[1].split("```")[0].splitlines()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(prepare, "Console", partial(Console, width=100))
    monkeypatch.chdir(tmp_path)
    write_own_csv(Path("logp.csv"))
    Path("logp.yaml").write_text(yaml.safe_dump(recipe | {"base": str(tiny_base)}))
    with pytest.raises(SystemExit, match="12 of 200"):
        prepare.main(["logp.yaml", "--output_dir", "out"])
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in table.splitlines() if line] == printed[1:]
    assert set(lines) < set(Path("out.rejected.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("column", "name", "nearest"),
    [("molecule", "smile", "'SMILES'"), ("answer", "logp7", "'logP'"), ("id", "compund", "'comp")],
)
def test_a_column_that_is_not_there(
    recipe: str, tmp_path: Path, column: str, name: str, nearest: str
):
    settings = yaml.safe_load(Path(recipe).read_text())
    settings["sources"][0][column] = name
    Path(recipe).write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit, match=f"no column '{name}': did you mean {nearest}"):
        prepare.main([recipe, "--output_dir", str(tmp_path / "data")])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("> 5", "'> 5' is not a number: it is a bound"),
        ("<0.01", "is not a number: it is a bound"),
        ("1_5", "without a unit or anything else"),
        ("2.1 ± 0.2", "without a unit or anything else"),
        ("1.234,5", "without a unit or anything else"),
        ("−0.31", "is not a number: "),
        ("nan", "is not a finite number"),
        ("soluble", "is not a number: write a number or drop the row"),
    ],
)
def test_other_values_that_are_no_numbers(value: str, reason: str):
    task = prepare.get_task("property_prediction")
    with pytest.raises(ValueError, match=reason):
        task.answer(value)
