# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""MoleculeNet files by name; with `MORA_DATA`, the real ones in its folder `moleculenet`."""

import gzip
import os
import pickle
from pathlib import Path

import pytest

from modeling_mora.tasks_mora import get_task
from training.data.moleculenet import SETS, SIDER, TOX21, load_moleculenet
from training.data.source import RawExample, RowError, Source

pytestmark = pytest.mark.usefixtures("datasets_cache")
DATA = Path(os.environ.get("MORA_DATA", "")) / "moleculenet"
needs_data = pytest.mark.skipif("MORA_DATA" not in os.environ, reason="MORA_DATA is not set")
# File, rows, examples (rows times targets, less the gaps), first id, first answer.
REAL = {
    "esol": ("delaney-processed.csv", 1_128, 1_128, "Amigdalin", -0.77),
    "freesolv": ("SAMPL_freesolv.csv", 642, 642, "4-methoxy-N,N-dimethyl-benzamide", -11.01),
    "lipophilicity": ("Lipophilicity.csv", 4_200, 4_200, "CHEMBL596271", 3.54),
    "bace_regression": ("bace.csv.gz", 1_513, 1_513, "BACE_1", 9.1549015),
    "bace": ("bace.csv.gz", 1_513, 1_513, "BACE_1", 1),
    "bbbp": ("BBBP.csv", 2_050, 2_050, "all-0", 1),
    "clintox": ("clintox.csv", 1_484, 2 * 1_484, "all-0", 1),
    "hiv": ("HIV.csv", 41_127, 41_127, "all-0", 0),
    "sider": ("sider.csv.gz", 1_427, 27 * 1_427, "all-0", 1),
    "tox21": ("tox21.csv", 7_831, 77_946, "TOX3021", 0),
}
POSITIVES = {"bace": 691, "bbbp": 1_567, "hiv": 1_443}


def load(tmp_path: Path, name: str, text: str, **settings: object) -> Source:
    (tmp_path / "rows.csv").write_text(text)
    return load_moleculenet(name, tmp_path / "rows.csv", **settings)


def examples(source: Source, split: str = "all") -> list[RawExample]:
    read = pickle.loads(pickle.dumps(source.read))
    return [example for row in source.splits[split] for example in read(row)]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_number(tmp_path: Path, streaming: bool):
    text = "Compound ID,measured log solubility in mols per litre,smiles\nFenfuram,-3.3,CCO \n"
    source = load(tmp_path, "esol", text, streaming=streaming)
    [example] = examples(source)
    assert (example.id, example.molecule, example.answer) == ("Fenfuram", "CCO", -3.3)
    assert example.columns == ("smiles", "measured log solubility in mols per litre")
    task = get_task(source.task, **source.task_settings)
    question = task.question(example.molecule, **example.options)
    assert question == "water solubility of CCO in log10(mol/L)?"
    assert task.answer(example.answer, example.options["property"]) == "-3.30"


@pytest.mark.parametrize(
    "header", ["num,name,p_np,smiles", "num,name,BBBP,smiles", "num,name,bbbp,SMILES"]
)
def test_a_label_by_its_known_names(tmp_path: Path, header: str):
    source = load(
        tmp_path, "bbbp", f"{header}\n1,ethanol,1,CCO\n1,water,0,O\n3,salt,,[Na+].[Cl-]\n"
    )
    found = examples(source)
    assert [(e.id, e.answer) for e in found] == [("all-0", 1), ("all-1", 0)]
    task = get_task(source.task, **source.task_settings)
    question = task.question("CCO", **found[0].options)
    assert question == "Does CCO cross the blood-brain barrier? Yes or No."
    assert task.answer(found[0].answer) == "Yes"


def test_several_labels_with_gaps(tmp_path: Path):
    header = ",".join(TOX21)
    values = "1,0,,,,,,,,,,1.0"
    source = load(tmp_path, "tox21", f"{header},mol_id,smiles\n{values},TOX1,CCO\n")
    found = examples(source)
    assert [(e.options["label"], e.answer) for e in found] == [
        ("NR-AR", 1),
        ("NR-AR-LBD", 0),
        ("SR-p53", 1),
    ]
    assert {e.id for e in found} == {"TOX1"}
    assert found[2].columns == ("smiles", "SR-p53")


def test_renamed_sider_columns(tmp_path: Path):
    header = ",".join(f"SIDER{i}" for i in range(1, 28))
    source = load(tmp_path, "sider", f"smiles,{header}\nCCO,{','.join('0' * 26)},1\n")
    found = examples(source)
    assert [e.options["label"] for e in found] == list(SIDER)
    assert found[-1].options["label"] == "Injury, poisoning and procedural complications"
    assert [e.answer for e in found] == [0] * 26 + [1]


@pytest.mark.parametrize(
    ("name", "header", "row", "column", "reason"),
    [
        ("bbbp", "p_np,smiles", "2,C", "p_np", "neither 0 nor 1"),
        ("bbbp", "p_np,smiles", "0.5,C", "p_np", "neither 0 nor 1"),
        ("bbbp", "p_np,smiles", "yes,C", "p_np", "not a number"),
        ("bbbp", "p_np,smiles", "1, ", "smiles", "is empty"),
        ("freesolv", "iupac,expt,smiles", "methane,>2,C", "expt", "not a number"),
        ("freesolv", "iupac,expt,smiles", "methane,inf,C", "expt", "not a finite number"),
    ],
)
def test_broken_rows(tmp_path: Path, name: str, header: str, row: str, column: str, reason: str):
    source = load(tmp_path, name, f"{header}\n{row}\n")
    with pytest.raises(RowError, match=reason) as caught:
        examples(source)
    assert caught.value.column == column


def test_unknown_names(tmp_path: Path):
    with pytest.raises(ValueError, match="'qm7' is unknown: use one of esol, freesolv"):
        load(tmp_path, "qm7", "smiles\nC\n")
    with pytest.raises(ValueError, match="for the BBBP: expected 'BBBP' or 'p_np', found 'y'"):
        load(tmp_path, "bbbp", "y,smiles\n1,C\n")


def test_split_files_and_compression(tmp_path: Path):
    for name in ("train", "valid"):
        with gzip.open(tmp_path / f"{name}.csv.gz", "wt") as file:
            file.write("mol,CID,Class,pIC50\nCCO,BACE_1,1,9.15\n")
    source = load_moleculenet("bace_regression", tmp_path)
    assert list(source.splits) == ["train", "validation"]
    assert examples(source, "validation")[0].answer == 9.15


@pytest.mark.parametrize("name", SETS)
def test_questions_are_english(name: str):
    chosen = SETS[name]
    for label, text in chosen.labels.items():
        # The question is "Does <molecule> <text>?"
        assert text.split()[0] in {
            "activate", "affect", "cause", "cross", "fail", "have", "inhibit", "lower", "raise"
        }, label  # fmt: skip
        assert not text.endswith((".", "?"))
    assert len(set(chosen.labels.values())) == len(chosen.labels)
    assert bool(chosen.labels) != bool(chosen.properties)


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str):
    file, rows, count, identity, answer = REAL[name]
    source = load_moleculenet(name, DATA / file)
    found = examples(source)
    assert (len(source.splits["all"]), len(found)) == (rows, count)
    assert (found[0].id, found[0].answer) == (identity, answer)
    assert len({(e.id, *e.options.values()) for e in found}) == count
    if name in POSITIVES:
        assert sum(example.answer for example in found) == POSITIVES[name]
