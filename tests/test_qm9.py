# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""QM9 as questions: split over molecules, columns, errors."""

import importlib.util
import logging
from pathlib import Path

import pytest
from rdkit import Chem

from modeling_mora.tasks_mora import get_task
from training.data import qm9

HEADER = "XYZ_file,Index,SMILES,HOMO_au,LUMO_au,HOMO_LUMO_gap_au\n"
# Alkanes and alcohols; ethanol is there twice, written in two ways, and one row is no molecule.
SMILES = ["C" * n for n in range(1, 10)] + ["O" + "C" * n for n in range(1, 9)]
SMILES += ["CCO", "c1cccc"]
COLUMNS = {"task", "prompt", "answer", "molecule", "id", "source", "property", "group"}


@pytest.fixture
def small_qm9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """17 distinct molecules in two files, laid out as in qm9pack."""
    lines = [
        f'"dsgdb9nsd_{i:06d}.xyz",{i},"{smiles}",-0.2500,0.{i:04d},{0.25 + i / 10000:.4f}\n'
        for i, smiles in enumerate(SMILES, start=1)
    ]
    paths = [tmp_path / "qm9_part1.csv", tmp_path / "qm9_part2.csv"]
    paths[0].write_text(HEADER + "".join(lines[:7]))
    paths[1].write_text(HEADER + "".join(lines[7:]))
    monkeypatch.setattr(qm9, "find_csv_files", lambda: paths)


@pytest.mark.usefixtures("small_qm9")
def test_no_molecule_is_in_two_splits_or_twice_in_one():
    data = qm9.load_qm9(train=10, validation=3, test=4, seed=3)
    molecules = [molecule for split in data.values() for molecule in split["molecule"]]
    assert [len(data[split]) for split in ("train", "validation", "test")] == [10, 3, 4]
    assert len({Chem.CanonSmiles(molecule) for molecule in molecules}) == 17


@pytest.mark.usefixtures("small_qm9")
def test_rows_hold_the_energy_of_their_own_molecule():
    data = qm9.load_qm9(properties=["homo", "gap"], train=17, validation=0, test=0)["train"]
    assert set(data.column_names) == COLUMNS
    assert len(data) == 2 * 17
    number_of = {Chem.CanonSmiles(smiles): i for i, smiles in enumerate(SMILES[:17], start=1)}
    number_of.pop(Chem.CanonSmiles("CCO"))  # there twice, with two energies
    task = get_task("property_prediction")
    for row in data:
        assert row["molecule"] in row["prompt"]
        assert row["prompt"] == task.question(row["molecule"], row["property"])
        if row["molecule"] in number_of:
            number = number_of[row["molecule"]]
            assert row["id"] == f"dsgdb9nsd_{number:06d}"
            expected = {"homo": "-0.2500", "gap": f"{0.25 + number / 10000:.4f}"}
            assert row["answer"] == expected[row["property"]]


@pytest.mark.usefixtures("small_qm9")
def test_split_depends_on_the_seed_alone():
    first = qm9.load_qm9(train=5, validation=2, test=6, seed=1)
    again = qm9.load_qm9(train=9, validation=2, test=6, seed=1)
    other = qm9.load_qm9(train=5, validation=2, test=6, seed=2)
    assert first["test"].to_list() == again["test"].to_list()
    assert first["train"].to_list() == again["train"].to_list()[:5]
    assert first["test"].to_list() != other["test"].to_list()


@pytest.mark.usefixtures("small_qm9")
def test_unparsable_molecules_are_reported(caplog: pytest.LogCaptureFixture):
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ValueError, match="1 are missing in train"),
    ):
        qm9.load_qm9(train=18, validation=0, test=0)
    assert "dsgdb9nsd_000019" in caplog.text
    assert "c1cccc" in caplog.text


@pytest.mark.usefixtures("small_qm9")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"properties": ["gap", "mass"]}, r"'mass'.*choose from \['homo', 'lumo', 'gap'\]"),
        ({"properties": []}, "choose from"),
        ({"train": -1}, "train=-1"),
        ({"train": 10, "validation": 4, "test": 4}, "too few molecules.*test=4.*train=10"),
    ],
)
def test_impossible_settings(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        qm9.load_qm9(**({"train": 1, "validation": 1, "test": 1} | settings))


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install qm9pack"):
        qm9.find_csv_files()


@pytest.mark.skipif(importlib.util.find_spec("qm9pack") is None, reason="qm9pack not installed")
def test_real_qm9():
    table = qm9.read_qm9()
    assert len(table) == 130_831
    methane = table[table["XYZ_file"] == "dsgdb9nsd_000001.xyz"].iloc[0]
    assert methane["SMILES"] == "C"
    assert methane["HOMO_LUMO_gap_au"] == 0.5048
