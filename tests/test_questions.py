# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What a benchmark asks: which rows, under which controls, and how long an answer may get.

With `MORA_DATA`, molecules are also hidden in the questions of the reactions and captions in it.
"""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from eval.generation import ANSWER_MARGIN
from eval.questions import (
    CONTROLS,
    BenchmarkData,
    answer_budgets,
    fingerprint,
    load_data_of,
    make_questions,
    select_rows,
    shuffle_molecules,
)
from modeling_mora import MoleculeFeatureExtractor, MoraProcessor
from modeling_mora.molecules_mora import read_smiles
from modeling_mora.tasks_mora import TASKS, get_task
from training.data.build import build_examples
from training.data.sources import open_source


def example(number: int, molecule: str, answer: str = "0.1", task: str = "property_prediction"):
    return {
        "task": task,
        "prompt": f"Gap of {molecule}?",
        "answer": answer,
        "molecule": molecule,
        "id": f"m{number}",
        "source": "s",
        "property": "gap" if task == "property_prediction" else None,
        "group": None,
    }


ROWS = [
    example(0, "CCO"),
    example(1, "C"),
    example(1, "C", "0.2"),
    example(2, "CC", "a long answer", "molecule_captioning"),
]


@pytest.fixture
def data() -> BenchmarkData:
    splits = {"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS)}
    return BenchmarkData("here", DatasetDict(splits), {}, 0)


def test_rows_keep_their_number_in_the_split(data: BenchmarkData):
    rows = select_rows(data, "test", ["molecule_captioning"], None)
    assert [(row["row"], row["id"]) for row in rows] == [(3, "m2")]
    assert [row["row"] for row in select_rows(data, "test", None, 2)] == [0, 2]
    assert [row["row"] for row in select_rows(data, "test", None, 3)] == [0, 1, 2]
    assert len(select_rows(data, "test", None, 9)) == 4


def test_unknown_splits_tasks_and_empty_splits_are_named(data: BenchmarkData):
    with pytest.raises(ValueError, match="no split 'valid': use one of train, test"):
        select_rows(data, "valid", None, None)
    with pytest.raises(ValueError, match="no 'retrosynthesis' in split 'test': it asks property"):
        select_rows(data, "test", ["retrosynthesis"], None)
    data.splits["test"] = data.splits["test"].select([])
    with pytest.raises(ValueError, match="is empty"):
        select_rows(data, "test", None, None)


def test_controls_change_the_graph_or_the_string_alone(data: BenchmarkData):
    rows = select_rows(data, "test", None, None)
    asked = {name: make_questions(rows, name, 0, data.task) for name in (None, *CONTROLS)}
    without_string = asked.pop("no_string")
    for name, questions in asked.items():
        assert [q["control"] for q in questions] == [name] * 4
        for question, original in zip(questions, asked[None], strict=True):
            assert question | {"control": None, "graph": None} == original | {"graph": None}
    for question, original in zip(without_string, asked[None], strict=True):
        changed = {"control": "no_string", "prompt": "Gap of this molecule?"}
        assert question == original | changed
    graphs = {name: [q["graph"] for q in questions] for name, questions in asked.items()}
    assert graphs[None] == ["CCO", "C", "C", "CC"]
    assert graphs["no_molecule"] == graphs["base_model"] == [None] * 4
    shuffled = graphs["shuffled_molecule"]
    assert sorted(set(shuffled)) == ["C", "CC", "CCO"]
    assert all(a != b for a, b in zip(shuffled, graphs[None], strict=True))
    assert shuffled[1] == shuffled[2]  # two questions about one molecule


def test_a_question_without_its_string_is_named(data: BenchmarkData):
    rows = select_rows(data, "test", ["molecule_captioning"], None)
    rows[0]["prompt"] = "Gap of CCC?"
    with pytest.raises(ValueError, match=r"Row 3: the question 'Gap of CCC\?' does not spell 'CC'"):
        make_questions(rows, "no_string", 0, data.task)


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def small_sources(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every source with rows whose molecules are not written as the questions spell them."""
    reactions = write(
        folder / "reactions.jsonl",
        {"reactants": "OCC.CC(=O)O", "reagents": "OS(=O)(=O)O.C", "product": "CC(OCC)=O"},
        {"reactants": "C(C)O.[K+].[OH-]", "reagents": "C(C)O", "product": r"F\C=C\F.OCC=C"},
    )
    esol = folder / "esol.csv"
    esol.write_text(
        "Compound ID,measured log solubility in mols per litre,smiles\na,-3.3,OCC\nb,1.0,C\n"
    )
    bbbp = folder / "bbbp.csv"
    bbbp.write_text("num,name,p_np,smiles\n1,a,1,O\n2,b,0,C(C)(N)[C@H](O)F\n")
    captions = folder / "train.txt"
    captions.write_text('CID\tSMILES\tdescription\n1\tO=C(O)C\tAn acid.\n2\tI\tAn "acid".\n')
    instruction = {"input": "[O][C][C]", "output": "0.3280"}
    instruction["instruction"] = "Give the gap between HOMO and LUMO."
    reagents = {"input": "[O][C][C].[C]>>[C][C]", "output": "[O]", "instruction": "Which?"}
    return [
        ("qm9", {"properties": ["gap", "homo"]}),
        *(
            ("uspto", {"task": task, "data": reactions, "several_products": "keep"})
            for task in ("forward_reaction_prediction", "retrosynthesis", "reagent_prediction")
        ),
        ("moleculenet", {"name": "esol", "data": esol}),
        ("moleculenet", {"name": "bbbp", "data": bbbp}),
        ("chebi20", {"data": captions}),
        (
            "mol_instructions",
            {"task": "property_prediction", "data": write(folder / "gap.json", instruction)},
        ),
        (
            "mol_instructions",
            {"task": "reagent_prediction", "data": write(folder / "reagents.json", reagents)},
        ),
    ]


def check_hidden(name: str, settings: dict[str, Any], notation: str) -> str:
    """Hide the molecules of a source's rows; what was taken out must be the row's molecule.

    Returns:
        The task of the source.
    """
    source = open_source(name, **settings)
    source = replace(source, task_settings={**source.task_settings, "notation": notation})
    splits, _ = build_examples(source, MoleculeFeatureExtractor(), phrasings="mixed", check=False)
    task = get_task(source.task, **source.task_settings)
    data = BenchmarkData(name, splits, {source.task: source.task_settings}, None)
    for split in splits:
        rows = select_rows(data, split, None, None)
        for row, question in zip(
            rows, make_questions(rows, "no_string", 0, data.task), strict=True
        ):
            hidden = question["prompt"]
            # Each place where the words might have taken the string's, and what stood there.
            taken = [
                row["prompt"][len(before) : len(row["prompt"]) - len(behind)]
                for match in re.finditer(task.hidden, hidden)
                if row["prompt"].startswith(before := hidden[: match.start()])
                and row["prompt"].endswith(behind := hidden[match.end() :])
            ]
            read = [read_smiles(text.replace(">>", "."), notation) for text in taken]
            assert row["molecule"] in read, (row["prompt"], hidden)
            assert task.spell(row["molecule"]) not in hidden.split()
    return source.task


@pytest.mark.usefixtures("small_qm9", "datasets_cache")
@pytest.mark.parametrize("notation", ["smiles", "selfies"])
def test_the_string_is_hidden_in_the_questions_of_every_source(tmp_path: Path, notation: str):
    asked = {check_hidden(*source, notation) for source in small_sources(tmp_path)}
    assert asked == {*TASKS} - {"molecule_qa"}


@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize(
    ("notation", "hidden"),
    [
        ("smiles", "Is this molecule a drink? What is CCOC? this molecule"),
        # What a user has asked is in no notation of ours.
        ("selfies", "Is CCO a drink? What is CCOC? this molecule"),
    ],
)
@pytest.mark.parametrize("spelled", ["OCC", "[C][C][O]", "InChI=1S/C2H6O/c1-2-3/h3H,2H2,1H3"])
def test_the_string_is_hidden_in_questions_of_a_user(
    tmp_path: Path, notation: str, hidden: str, spelled: str
):
    row = {"mol": spelled, "asked": "Is CCO a drink? What is CCOC?", "answer": "Yes."}
    source = open_source(
        "table",
        data=write(tmp_path / "asked.jsonl", row),
        task="molecule_qa",
        molecule="mol",
        answer="answer",
        option_columns={"question": "asked"},
    )
    source = replace(source, task_settings={"notation": notation})
    splits, _ = build_examples(source, MoleculeFeatureExtractor(), phrasings="first")
    data = BenchmarkData("asked", splits, {"molecule_qa": {"notation": notation}}, None)
    (question,) = make_questions(select_rows(data, "all", None, None), "no_string", 0, data.task)
    assert (question["prompt"], question["graph"]) == (hidden, "CCO")


MORA_DATA = Path(os.environ.get("MORA_DATA", ""))


@pytest.mark.skipif("MORA_DATA" not in os.environ, reason="MORA_DATA is not set")
@pytest.mark.usefixtures("datasets_cache")
@pytest.mark.parametrize("notation", ["smiles", "selfies"])
def test_the_string_is_hidden_in_real_questions(notation: str):
    data = {"data": MORA_DATA / "uspto15k" / "valid.jsonl"}
    for task in ("forward_reaction_prediction", "retrosynthesis", "reagent_prediction"):
        check_hidden("uspto", {"task": task, **data}, notation)
    check_hidden("chebi20", {"data": MORA_DATA / "chebi20" / "validation.jsonl"}, notation)


def test_every_molecule_gets_another_one_and_the_seed_decides():
    molecules = [f"C{'C' * i}" for i in range(50)]
    given = shuffle_molecules(molecules * 2, 0)
    assert sorted(given) == sorted(given.values()) == sorted(molecules)
    assert all(a != b for a, b in given.items())
    assert given == shuffle_molecules(molecules, 0) != shuffle_molecules(molecules, 1)
    with pytest.raises(ValueError, match="at least two different molecules"):
        shuffle_molecules(["C", "C"], 0)


def test_answers_may_be_as_long_as_in_training(data: BenchmarkData, processor: MoraProcessor):
    rows = select_rows(data, "test", None, None)
    budgets = answer_budgets(data, rows, processor, None)
    assert budgets == {
        "property_prediction": len("0.1") + ANSWER_MARGIN,
        "molecule_captioning": len("a long answer") + ANSWER_MARGIN,
    }
    assert set(answer_budgets(data, rows, processor, 7).values()) == {7}
    del data.splits["train"]
    with pytest.raises(ValueError, match=r"no training answers for 'property_.*--max_new_tokens"):
        answer_budgets(data, rows, processor, None)


@pytest.mark.parametrize("key", ["id", "molecule", "prompt", "answer", "row"])
def test_fingerprint_sees_every_change(data: BenchmarkData, key: str):
    rows = select_rows(data, "test", None, None)
    before = fingerprint(rows)
    rows[1][key] = "other"
    assert fingerprint(rows) != before


def test_a_model_without_data_settings_is_one_clear_error(tmp_path: Path):
    with pytest.raises(OSError, match=r"holds no data\.json.*--data"):
        load_data_of(str(tmp_path))
    (tmp_path / "data.json").write_text(json.dumps({"prepared": "gone", "fingerprints": {}}))
    with pytest.raises(ValueError, match="'gone' is no folder of prepared data"):
        load_data_of(str(tmp_path))
