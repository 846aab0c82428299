# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Reactions from tables and from reaction SMILES; with `MORA_DATA`, the USPTO sets in it."""

import csv
import json
import os
import pickle
from pathlib import Path

import pytest

from modeling_mora.tasks_mora import get_task
from training.data.reactions import load_reactions, split_reaction
from training.data.source import RawExample, RowError, Source

pytestmark = pytest.mark.usefixtures("datasets_cache")
ESTER = {"id": "r1", "reactants": "CCO.CC(=O)O", "reagents": "OS(=O)(=O)O", "product": "CCOC(C)=O"}
MAPPED = (
    "[CH3:1][CH2:2][OH:3].[CH3:4][C:5](=[O:6])O>OS(=O)(=O)O>[CH3:1][CH2:2][O:3][C:5]([CH3:4])=[O:6]"
)
DATA = Path(os.environ.get("MORA_DATA", ""))
needs_data = pytest.mark.skipif("MORA_DATA" not in os.environ, reason="MORA_DATA is not set")


def write(tmp_path: Path, *rows: dict) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_smiles(tmp_path: Path, *reactions: str) -> Path:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["rxn"], *([reaction] for reaction in reactions)])
    return tmp_path / "rows.csv"


def examples(source: Source, split: str = "all") -> list[RawExample]:
    read = pickle.loads(pickle.dumps(source.read))
    return [example for row in source.splits[split] for example in read(row)]


def rejection(source: Source) -> RowError:
    with pytest.raises(RowError) as caught:
        examples(source)
    return caught.value


def test_the_three_tasks(tmp_path: Path):
    path = write(tmp_path, ESTER)
    [forward] = examples(load_reactions(path))
    assert (forward.id, forward.molecule, forward.answer) == ("r1", "CCO.CC(=O)O", "CCOC(C)=O")
    assert forward.options == {"reagents": "O=S(=O)(O)O"}
    assert forward.columns == ("reactants", "product")
    [retro] = examples(load_reactions(path, "retrosynthesis"))
    assert (retro.molecule, retro.answer, retro.options) == ("CCOC(C)=O", "CCO.CC(=O)O", {})
    assert retro.columns == ("product", "reactants")
    [reagents] = examples(load_reactions(path, "reagent_prediction"))
    assert reagents.molecule == "CCO.CC(=O)O>>CCOC(C)=O"
    assert reagents.answer == "OS(=O)(=O)O"
    task = get_task("reagent_prediction")
    assert task.question(task.read(reagents.molecule)).endswith("CC(=O)O.CCO>>CCOC(C)=O")


def test_other_column_names(tmp_path: Path):
    path = write(tmp_path, {"left": "CCO", "right": "CC=O"})
    names = {"reactants": "left", "product": "right"}
    [example] = examples(load_reactions(path, columns=names))
    assert (example.id, example.columns) == ("all-0", ("left", "right"))
    assert example.options == {}
    with pytest.raises(ValueError, match="no column 'reagents'"):
        load_reactions(path, "reagent_prediction", columns=names)
    with pytest.raises(ValueError, match="no column 'rigth': did you mean 'right'"):
        load_reactions(path, columns=names | {"product": "rigth"})
    with pytest.raises(ValueError, match="'products': did you mean 'product'"):
        load_reactions(path, columns={"products": "right"})


@pytest.mark.parametrize("streaming", [False, True])
def test_atom_maps_go(tmp_path: Path, streaming: bool):
    path = write_smiles(tmp_path, MAPPED)
    source = load_reactions(path, reaction_column="rxn", streaming=streaming)
    [example] = examples(source)
    task = get_task(source.task)
    assert task.read(example.molecule, source.molecule_format) == "CC(=O)O.CCO"
    assert task.answer(example.answer) == "CCOC(C)=O"
    assert example.options == {"reagents": "O=S(=O)(O)O"}


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("CC>>CCl", (["CC"], [], ["CCl"])),
        ("CC.ClCl>>CCl.Cl", (["CC", "ClCl"], [], ["CCl", "Cl"])),
        ("C.[Na+].[OH-]>[K+].[Cl-]>CO |f:1.2,3.4|", (["C", "[Na+].[OH-]"], ["[K+].[Cl-]"], ["CO"])),
        ("C>>CC(=O)[O-].[Na+] |f:1.2|", (["C"], [], ["CC(=O)[O-].[Na+]"])),
        ("N->[Pt]>O>[Pt]", (["N->[Pt]"], ["O"], ["[Pt]"])),
    ],
)
def test_reaction_smiles(text: str, sides: tuple):
    assert split_reaction(text, "rxn") == sides


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("CC>CCl", "is no reaction"),
        ("CC>>CCl>O", "is no reaction"),
        ("CC>>CCl |^1:0|", r"tail '\|\^1:0\|' is not understood"),
        ("CC>>CCl |f:0.1,^1:0|", "is not understood"),
        ("CC>>CCl patent US123", "is not understood"),
        ("CC>>CCl |f:1.2|", "more components than there are"),
    ],
)
def test_reaction_smiles_that_are_none(text: str, reason: str):
    with pytest.raises(RowError, match=reason):
        split_reaction(text, "rxn")


@pytest.mark.parametrize(
    ("change", "column", "reason"),
    [
        ({"product": ""}, "product", "is empty"),
        ({"reactants": None}, "reactants", "is empty"),
        ({"reactants": "CCO..O"}, "reactants", "empty molecule"),
        ({"product": "OCC"}, "product", "already an input"),
        ({"product": "S(O)(O)(=O)=O"}, "product", "already an input"),
        ({"product": "[CH3:1][CH2][O][H]"}, "product", "already an input"),
        ({"product": "CCOC(C)=O.O"}, "product", "has 2 products"),
    ],
)
def test_broken_rows(tmp_path: Path, change: dict, column: str, reason: str):
    error = rejection(load_reactions(write(tmp_path, ESTER | change)))
    assert error.column == column
    assert error.value == (ESTER | change)[column]
    assert reason in error.reason


def test_empty_sides_of_reaction_smiles(tmp_path: Path):
    error = rejection(load_reactions(write_smiles(tmp_path, ">O>CC"), reaction_column="rxn"))
    assert (error.column, error.value, error.reason) == ("rxn", ">O>CC", "has no reactants")
    path = write_smiles(tmp_path, "CC>>CCl")
    error = rejection(load_reactions(path, "reagent_prediction", reaction_column="rxn"))
    assert error.reason == "has no reagents"
    assert len(examples(load_reactions(path, reaction_column="rxn"))) == 1


def test_several_products(tmp_path: Path):
    path = write(tmp_path, ESTER | {"product": "CCOC(C)=O.O"})
    [example] = examples(load_reactions(path, several_products="keep"))
    assert example.answer == "CCOC(C)=O.O"
    # The ions of one salt are one product.
    path = write_smiles(tmp_path, "CC(=O)O.[Na]>>CC(=O)[O-].[Na+] |f:2.3|")
    [example] = examples(load_reactions(path, reaction_column="rxn"))
    assert example.answer == "CC(=O)[O-].[Na+]"


def test_unreadable_molecules_are_left_to_who_makes_the_example(tmp_path: Path):
    [example] = examples(load_reactions(write(tmp_path, ESTER | {"reagents": "C(C"})))
    assert example.options == {"reagents": "C(C"}


def test_unknown_settings(tmp_path: Path):
    with pytest.raises(ValueError, match="task='qa': use one of forward"):
        load_reactions(tmp_path, "qa")
    with pytest.raises(ValueError, match="several_products='drop'"):
        load_reactions(tmp_path, several_products="drop")


@needs_data
@pytest.mark.parametrize("task", ["forward_reaction_prediction", "retrosynthesis"])
@pytest.mark.parametrize(
    ("file", "rows", "noops"),
    [
        ("uspto15k/train.jsonl", 10_500, 64),
        ("uspto15k/valid.jsonl", 1_500, 5),
        ("uspto15k/test.jsonl", 3_000, 16),
        ("uspto50k/valid.jsonl", 5_004, 1),
        ("uspto50k/train.jsonl.gz", 40_029, 7),
    ],
)
def test_uspto(file: str, rows: int, noops: int, task: str):
    source = load_reactions(DATA / file, task)
    [table] = source.splits.values()
    rejected = 0
    for row in table:
        try:
            [example] = source.read(row)
        except RowError:
            rejected += 1
            assert row["noop"]
        else:
            assert example.id == row["id"]
            assert not row["noop"]
    assert (len(table), rejected) == (rows, noops)


@needs_data
def test_uspto15k_reagents():
    source = load_reactions(DATA / "uspto15k", "reagent_prediction")
    assert {split: len(rows) for split, rows in source.splits.items()} == {
        "train": 10_500,
        "validation": 1_500,
        "test": 3_000,
    }
    with_reagents = [row for row in source.splits["validation"] if row["reagents"]]
    assert len(with_reagents) == 1_134
    assert all(source.read(row)[0].answer == row["reagents"] for row in with_reagents)
