# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""ChEBI-20 as published and in copies; with `MORA_DATA`, the validation rows in it."""

import json
import os
import pickle
from pathlib import Path

import pytest
from datasets import Dataset

from training.data.chebi20 import load_chebi20
from training.data.source import RawExample, RowError

pytestmark = pytest.mark.usefixtures("datasets_cache")
# The quotation mark is the prime of a locant: read as quoting it would swallow the next rows.
PUBLISHED = (
    "CID\tSMILES\tdescription\n"
    "702\tCCO\tThe molecule is a primary alcohol.\n"
    '92\tO=C(O)C\t"The molecule" has a 3"-amino group.\n'
    "176\tCC(=O)O\tThe molecule is acetic acid.\n"
)
TEXTS = [
    "The molecule is a primary alcohol.",
    '"The molecule" has a 3"-amino group.',
    "The molecule is acetic acid.",
]
DATA = Path(os.environ.get("MORA_DATA", "")) / "chebi20"
needs_data = pytest.mark.skipif("MORA_DATA" not in os.environ, reason="MORA_DATA is not set")


def examples(source, split: str) -> list[RawExample]:
    read = pickle.loads(pickle.dumps(source.read))
    return [example for row in source.splits[split] for example in read(row)]


@pytest.mark.parametrize("streaming", [False, True])
def test_as_published(tmp_path: Path, streaming: bool):
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.txt").write_text(PUBLISHED)
    source = load_chebi20(tmp_path, streaming=streaming)
    assert list(source.splits) == ["train", "validation", "test"]
    assert source.task == "molecule_captioning"
    found = examples(source, "test")
    assert [example.id for example in found] == ["702", "92", "176"]
    assert [example.molecule for example in found] == ["CCO", "O=C(O)C", "CC(=O)O"]
    assert [example.answer for example in found] == TEXTS
    assert found[0].columns == ("SMILES", "description")
    [one] = load_chebi20(str(tmp_path / "validation.txt")).splits
    assert one == "validation"


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("CID", "SMILES", "description"), "702"),
        (("cid", "smiles", "caption"), "702"),
        (("number", "molecule", "Text"), "train-0"),
    ],
)
def test_copies_in_parquet(tmp_path: Path, names: tuple, first: str):
    rows = [702.0, "CCO", "The molecule is a primary alcohol."]
    Dataset.from_list([dict(zip(names, rows, strict=True))]).to_parquet(tmp_path / "train.parquet")
    [example] = examples(load_chebi20(tmp_path / "train.parquet"), "train")
    assert example == RawExample(first, "CCO", rows[2], columns=(names[1], names[2]))


def test_broken_rows(tmp_path: Path):
    rows = [{"cid": 1, "smiles": "C", "description": " "}, {"cid": 2, "description": "gas"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = load_chebi20(tmp_path / "rows.jsonl")
    for row, column in zip(source.splits["all"], ("description", "smiles"), strict=True):
        with pytest.raises(RowError, match="is empty") as caught:
            source.read(row)
        assert caught.value.column == column


def test_missing_columns(tmp_path: Path):
    (tmp_path / "rows.csv").write_text("cid,smiles\n1,C\n")
    with pytest.raises(ValueError, match="for the description: expected 'description'.*'smiles'"):
        load_chebi20(tmp_path / "rows.csv")
    with pytest.raises(FileNotFoundError, match="test.txt"):
        load_chebi20(tmp_path / "test.txt")


@needs_data
def test_validation_rows():
    found = examples(load_chebi20(DATA / "validation.jsonl"), "validation")
    assert len(found) == 3_301
    assert len({example.id for example in found}) == 3_301
    assert found[0].id == "92470518"
    assert found[0].answer.startswith("The molecule is a member of the class of pterocarpans")
