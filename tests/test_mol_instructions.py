# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Mol-Instructions in zips, folders and files; with `MORA_DATA`, the rows of its README in it."""

import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import selfies
from conftest import MOLECULES
from rdkit import Chem

from modeling_mora.tasks_mora import get_task
from training.data import mol_instructions
from training.data.mol_instructions import (
    TASKS,
    load_mol_instructions,
    property_of,
    to_smiles,
)
from training.data.source import RawExample, RowError, Source

pytestmark = pytest.mark.usefixtures("datasets_cache")
ETHANOL = "[C][C][O]"
GAP = "Please provide the gap between HOMO and LUMO of this molecule."
README = Path(os.environ.get("MORA_DATA", "")) / "molinstructions" / "readme_examples.jsonl"
needs_data = pytest.mark.skipif("MORA_DATA" not in os.environ, reason="MORA_DATA is not set")


def row(split: str | None = "train", task: str = "property prediction", **change: object) -> dict:
    whole = {"instruction": GAP, "input": ETHANOL, "output": "0.3280"}
    return whole | {"metadata": {"task": task, "split": split}} | change


def write(path: Path, *rows: dict) -> Path:
    path.write_text(json.dumps(rows))
    return path


def examples(source: Source, split: str = "all") -> list[RawExample]:
    read = pickle.loads(pickle.dumps(source.read))
    return [example for row in source.splits[split] for example in read(row)]


@pytest.mark.parametrize("streaming", [False, True])
def test_splits_of_the_published_zip(tmp_path: Path, streaming: bool):
    folder = tmp_path / "Molecule-oriented_Instructions"
    folder.mkdir()
    file = write(
        folder / "property_prediction.json",
        row("train"),
        row("Test", output="0.1"),
        row("TRAIN", output="0.2"),
        row("valid", output="0.3"),
    )
    with zipfile.ZipFile(tmp_path / "molecules.zip", "w") as archive:
        archive.writestr("__MACOSX/property_prediction.json", "not the file")
        archive.write(file, "Molecule-oriented_Instructions/property_prediction.json")
    for data in (tmp_path / "molecules.zip", tmp_path, folder, str(file)):
        source = load_mol_instructions("property_prediction", data, streaming=streaming)
        assert list(source.splits) == ["train", "validation", "test"]
        found = {split: examples(source, split) for split in source.splits}
        assert [e.id for e in found["train"]] == ["property_prediction-0", "property_prediction-2"]
        assert [e.answer for e in found["train"]] == [0.328, 0.2]
        assert [e.answer for e in found["validation"]] == [0.3]
        assert [e.answer for e in found["test"]] == [0.1]


def test_another_zip_of_the_same_name_is_unpacked_anew(tmp_path: Path):
    for answer in ("0.1", "0.2"):
        with zipfile.ZipFile(tmp_path / "molecules.zip", "w") as archive:
            archive.writestr("property_prediction.json", json.dumps([row(output=answer)]))
        source = load_mol_instructions("property_prediction", tmp_path / "molecules.zip")
        assert examples(source, "train")[0].answer == float(answer)


def test_a_row_without_split_among_others_is_an_error(tmp_path: Path):
    path = write(tmp_path / "rows.json", row("test"), row("train"), row(None), row("fold 3"))
    source = load_mol_instructions("property_prediction", path)
    assert {split: len(rows) for split, rows in source.splits.items()} == {"train": 3, "test": 1}
    good, missing, odd = source.splits["train"]
    assert len(source.read(good)) == 1
    for bad, value in ((missing, None), (odd, "fold 3")):
        with pytest.raises(RowError, match="names no split") as caught:
            source.read(bad)
        assert (caught.value.column, caught.value.value) == ("metadata.split", value)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("change", [{}, {"metadata": None}, {"metadata": "{'task': None}"}])
def test_files_without_splits(tmp_path: Path, change: dict, streaming: bool):
    rows = [row(None) | change, row(None) | change]
    path = write(tmp_path / "rows.json", *rows)
    source = load_mol_instructions("property_prediction", path, streaming=streaming)
    assert list(source.splits) == ["all"]
    assert len(examples(source)) == 2


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_other_tasks_are_left_out(tmp_path: Path, streaming: bool):
    other = row("train", task="retrosynthesis", output="[C]")
    path = write(
        tmp_path / "rows.json", other, row("train"), row("train", task="Property_Prediction")
    )
    source = load_mol_instructions("property_prediction", path, streaming=streaming)
    assert list(source.splits) == ["train"]
    assert [e.id for e in examples(source, "train")] == [
        "property_prediction-1",
        "property_prediction-2",
    ]


def test_metadata_as_text(tmp_path: Path):
    rows = [row() | {"metadata": "{'task': 'property prediction', 'split': 'test'}"}]
    source = load_mol_instructions("property_prediction", write(tmp_path / "rows.json", *rows))
    assert len(examples(source, "test")) == 1


@pytest.mark.parametrize(
    ("instruction", "name"),
    [
        (GAP, "gap"),
        ("What is the HOMO-LUMO gap of this molecule?", "gap"),
        ("… the highest occupied and lowest unoccupied molecular orbitals …", "gap"),
        ("Please provide me with the LUMO energy value of this molecule.", "lumo"),
        ("the lowest\nunoccupied molecular orbital", "lumo"),
        ("Please\u00a0provide\u00a0the\u00a0HOMO\u00a0energy.", "homo"),
        ("the highest occupied molecular orbital energy", "homo"),
        ("the highest\u00a0occupied molecular orbital energy", "homo"),
    ],
)
def test_property_from_the_instruction(instruction: str, name: str):
    assert property_of(instruction) == name


@pytest.mark.parametrize("instruction", ["What is its dipole moment?", "Name a homologue."])
def test_another_property_is_an_error(instruction: str):
    with pytest.raises(RowError, match="names none of HOMO, LUMO and HOMO-LUMO gap"):
        property_of(instruction)


@pytest.mark.parametrize(
    ("text", "smiles"),
    [
        ("[C][C][O]", "CCO"),
        (" [C].[Fe] ", "C.[Fe]"),
        ("[O][=N+1][Branch1][C][O-1][C]", "O=[N+1]([O-1])C"),
        # Version 1 of SELFIES.
        ("[C][C@@Hexpl][Branch1_1][C][N][C]", "C[C@@H1](N)C"),
        ("[C][C][Branch1_2][C][=O][O]", "CC(=O)O"),
        ("[C][C][Branch1_1][C][C][Branch1_1][C][C][C]", "CC(C)(C)C"),
        ("[Na+expl].[Cl-expl]", "[Na+1].[Cl-1]"),
    ],
)
def test_selfies_old_and_new(text: str, smiles: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_smiles(text, "input") == smiles
    if "_" in text or "expl" in text:
        with pytest.raises(selfies.DecoderError):
            selfies.decoder(text)


@pytest.mark.parametrize("smiles", MOLECULES)
def test_what_was_encoded_is_read(smiles: str):
    text = selfies.encoder(smiles, strict=False)
    assert Chem.CanonSmiles(to_smiles(text, "input")) == Chem.CanonSmiles(smiles)


@pytest.mark.parametrize(
    ("smiles", "left"),
    [
        ("CC(=O)OI1(OC(C)=O)(OC(C)=O)OC(=O)c2ccccc21", "CC(=O)OI"),
        ("CN(=O)=O", "CN(O)O"),
    ],
)
def test_what_decoding_would_change_is_an_error(smiles: str, left: str):
    text = selfies.encoder(smiles, strict=False)
    with pytest.raises(RowError, match="not what was encoded") as caught:
        to_smiles(text, "input")
    assert f"leave {left}," in caught.value.reason


@pytest.mark.parametrize(
    ("task", "change", "column", "reason"),
    [
        ("property_prediction", {"input": "CCO"}, "input", "not made of"),
        ("property_prediction", {"input": "[C]C"}, "input", "not made of"),
        ("property_prediction", {"input": "[C][foo]"}, "input", r"invalid symbol '\[foo\]'"),
        ("property_prediction", {"input": "[nop]"}, "input", "of no atoms"),
        ("property_prediction", {"input": "[C][I][=O]"}, "input", "leave CI, which is not what"),
        ("property_prediction", {"input": " "}, "input", "is empty"),
        ("property_prediction", {"output": "high"}, "output", "is not a number"),
        ("property_prediction", {"instruction": "Weight?"}, "instruction", "HOMO"),
        ("reagent_prediction", {"input": ETHANOL}, "input", "is no reaction"),
        ("reagent_prediction", {"input": f">>{ETHANOL}"}, "input", "not made of"),
        ("retrosynthesis", {"output": "0.3"}, "output", "not made of"),
        ("molecule_captioning", {"output": None}, "output", "is empty"),
    ],
)
def test_broken_rows(tmp_path: Path, task: str, change: dict, column: str, reason: str):
    path = write(tmp_path / "rows.json", row(None, task=TASKS[task][1], **change), row(None))
    with pytest.raises(RowError, match=reason) as caught:
        examples(load_mol_instructions(task, path))
    assert caught.value.column == column


def test_wrong_arguments(tmp_path: Path):
    with pytest.raises(ValueError, match="not supported: its input is a description"):
        load_mol_instructions("description_guided_molecule_design", tmp_path)
    with pytest.raises(ValueError, match="'captions' is unknown: use one of forward"):
        load_mol_instructions("captions", tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no retrosynthesis.json"):
        load_mol_instructions("retrosynthesis", tmp_path)
    with pytest.raises(FileNotFoundError, match="leave it out to download it"):
        load_mol_instructions("retrosynthesis", tmp_path / "none.zip")
    path = write(tmp_path / "rows.json", {"question": "?", "input": "[C]", "output": "1"})
    with pytest.raises(ValueError, match="no column 'instruction'"):
        load_mol_instructions("property_prediction", path)


def test_the_file_of_the_hub_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "rows.json", row())
    asked = []

    def download(*args: object, **settings: object) -> str:
        asked.append((args, settings))
        return str(path)

    monkeypatch.setattr(mol_instructions, "hf_hub_download", download)
    load_mol_instructions("property_prediction", revision="v1")
    file = "data/Molecule-oriented_Instructions.zip"
    settings = {"repo_type": "dataset", "revision": "v1"}
    assert asked == [(("zjunlp/Mol-Instructions", file), settings)]


@needs_data
@pytest.mark.parametrize(
    ("task", "question", "answer"),
    [
        (
            "forward_reaction_prediction",
            "Predict the product of these reactants: O=[N+]([O-])c1cnc(Cl)c(I)c1.[Fe]",
            "Nc1cnc(Cl)c(I)c1",
        ),
        (
            "retrosynthesis",
            "Which reactants give this product? C=CCCNC(=O)OC(C)(C)C",
            "C=CCCN.CC(C)(C)OC(=O)OC(=O)OC(C)(C)C",
        ),
        (
            "reagent_prediction",
            "Which reagents does this reaction need? Cc1ccc(N)cn1.O=C(Cl)CCl>>Cc1ccc(NC(=O)CCl)cn1",
            "C1CCOC1.CCN(CC)CC.O",
        ),
        ("property_prediction", "HOMO energy of CCOCC(C)C(C)C in hartree?", "-0.2482"),
        ("molecule_captioning", "Describe this molecule: CCCCCCCCCCCCCCCCCC(=O)", "The molecule"),
    ],
)
def test_rows_of_the_readme(task: str, question: str, answer: str):
    source = load_mol_instructions(task, README)
    [example] = examples(source)
    settings = get_task(source.task)
    molecule = settings.read(example.molecule, source.molecule_format)
    assert settings.question(molecule, **example.options).startswith(question)
    value = example.answer
    assert settings.answer(value).startswith(answer)
