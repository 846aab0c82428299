# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Any table for any task, by names of columns in Python or YAML."""

import json
import os
import pickle
from pathlib import Path

import pytest

from modeling_mora.tasks_mora import get_task
from training.data.source import RawExample, RowError, Source
from training.data.table import load_table, load_table_from_yaml

pytestmark = pytest.mark.usefixtures("datasets_cache")
LOGD = {"logd": {"description": "logD at pH 7.4", "decimals": 2}}
DATA = Path(os.environ.get("MORA_DATA", "")) / "moleculenet"
needs_data = pytest.mark.skipif("MORA_DATA" not in os.environ, reason="MORA_DATA is not set")


def write(tmp_path: Path, *rows: dict) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def examples(source: Source) -> list[RawExample]:
    read = pickle.loads(pickle.dumps(source.read))
    return [example for row in source.splits["all"] for example in read(row)]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_property_with_one_definition(tmp_path: Path, streaming: bool):
    (tmp_path / "rows.tsv").write_text("name\tSMI\tval\nethanol\tCCO\t-0.31\n007\tC\t1.09\n")
    source = load_table(
        tmp_path / "rows.tsv",
        "property_prediction",
        molecule="SMI",
        answer="val",
        id="name",
        properties=LOGD,
        streaming=streaming,
    )
    first, second = examples(source)
    assert first == RawExample("ethanol", "CCO", "-0.31", {"property": "logd"}, ("SMI", "val"))
    assert second.id == "007"
    task = get_task(source.task, **source.task_settings)
    assert task.question("CCO", **first.options) == "logD at pH 7.4 of CCO?"
    assert task.answer(first.answer, "logd") == "-0.31"


def test_options_from_columns(tmp_path: Path):
    rows = [
        {"mol": "CCO", "y": 1, "endpoint": "toxic"},
        {"mol": "C", "y": 0, "endpoint": "smelly"},
        {"mol": "N", "y": 0, "endpoint": "blue"},
    ]
    source = load_table(
        write(tmp_path, *rows),
        "property_classification",
        molecule="mol",
        answer="y",
        option_columns={"label": "endpoint"},
        labels={"toxic": "kill fish", "smelly": "smell"},
    )
    table = source.splits["all"]
    [first], [second] = source.read(table[0]), source.read(table[1])
    assert (first.id, first.options, first.answer) == ("all-0", {"label": "toxic"}, 1)
    assert (second.options, second.answer) == ({"label": "smelly"}, 0)
    with pytest.raises(RowError, match="'endpoint' holds 'blue': is not among toxic, smelly"):
        source.read(table[2])


def test_optional_options_may_be_empty(tmp_path: Path):
    path = write(tmp_path, {"a": "CCO", "b": "CC=O", "c": "O"}, {"a": "CO", "b": "C=O", "c": ""})
    source = load_table(
        path,
        "forward_reaction_prediction",
        molecule="a",
        answer="b",
        option_columns={"reagents": "c"},
    )
    assert [e.options for e in examples(source)] == [{"reagents": "O"}, {}]


def test_a_constant_question(tmp_path: Path):
    source = load_table(
        write(tmp_path, {"m": "CCO", "t": "Yes, in water."}),
        "molecule_qa",
        molecule="m",
        answer="t",
        options={"question": "Is it soluble?"},
    )
    [example] = examples(source)
    assert get_task("molecule_qa").question("CCO", **example.options) == "Is it soluble? CCO"


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"m": "", "t": "x", "q": "y", "n": "z"}, "m"),
        ({"m": "C", "t": None, "q": "y", "n": "z"}, "t"),
        ({"m": "C", "t": "x", "q": " ", "n": "z"}, "q"),
        ({"m": "C", "t": "x", "q": "y", "n": ""}, "n"),
    ],
)
def test_missing_cells(tmp_path: Path, row: dict, column: str):
    whole = {"m": "C", "t": "x", "q": "y", "n": "z"}
    source = load_table(
        write(tmp_path, whole, row),
        "molecule_qa",
        molecule="m",
        answer="t",
        id="n",
        option_columns={"question": "q"},
    )
    with pytest.raises(RowError, match="is empty") as caught:
        examples(source)
    assert caught.value.column == column


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"molecule": "smile"},
            r"no column 'smile': did you mean 'smiles'\? Its columns: 'smiles'",
        ),
        ({"id": "no"}, "no column 'no'"),
        ({"task": "toxicity"}, "Task 'toxicity' is unknown"),
        ({"options": {"property": "mass"}}, "property 'mass' is not defined: there are logd"),
        ({"options": {"question": "?"}}, "takes no 'question': it has property"),
        ({"option_columns": {"property": "what"}}, "no column 'what'"),
        (
            {"option_columns": {"property": "value"}, "options": {"property": "logd"}},
            "as a column and as a constant",
        ),
        ({"properties": None}, "needs 'property': name its column"),
        ({"properties": {}}, "properties are empty"),
        ({"properties": {"logd": {"unit": "M"}}}, "Property 'logd' has {'unit': 'M'}"),
        ({"properties": {"logd": {"description": "x", "digits": 2}}}, "give description, unit"),
        ({"labels": {"a": "b"}}, "Task 'property_prediction' has no labels"),
        ({"task": "property_classification", "properties": None}, "define at least one"),
        ({"task": "retrosynthesis", "properties": None, "options": {"label": 1}}, "it has none"),
        ({"molecule_format": "mol2"}, "molecule_format='mol2': use one of auto"),
    ],
)
def test_wrong_settings(tmp_path: Path, change: dict, message: str):
    settings = {
        "data": write(tmp_path, {"smiles": "C", "value": 1}),
        "task": "property_prediction",
        "molecule": "smiles",
        "answer": "value",
        "properties": LOGD,
    }
    with pytest.raises(ValueError, match=message):
        load_table(**(settings | change))


def test_yaml(tmp_path: Path):
    data = write(tmp_path, {"smiles": "CCO", "logD": -0.31})
    recipe = tmp_path / "logd.yaml"
    recipe.write_text(
        "data: elsewhere.csv\ntask: property_prediction\nmolecule: smiles\nanswer: logD\n"
        "properties:\n  logd: {description: logD at pH 7.4, decimals: 2}\n"
    )
    [example] = examples(load_table_from_yaml(recipe, data=data, name="mine"))
    assert (example.answer, example.options) == (-0.31, {"property": "logd"})
    with pytest.raises(FileNotFoundError, match="elsewhere.csv does not exist"):
        load_table_from_yaml(recipe)
    recipe.write_text("data: x.csv\ntask: retrosynthesis\nmolecul: smiles\n")
    with pytest.raises(ValueError, match="unknown key 'molecul': did you mean 'molecule'"):
        load_table_from_yaml(recipe)
    recipe.write_text("data: x.csv\ntask: retrosynthesis\n")
    with pytest.raises(ValueError, match="lacks molecule, answer"):
        load_table_from_yaml(recipe)
    recipe.write_text("- data\n")
    with pytest.raises(ValueError, match="holds list"):
        load_table_from_yaml(recipe)


@needs_data
def test_a_real_file():
    source = load_table(
        DATA / "Lipophilicity.csv",
        "property_prediction",
        molecule="smiles",
        answer="exp",
        id="CMPD_CHEMBLID",
        properties=LOGD,
    )
    found = examples(source)
    assert len(found) == len({example.id for example in found}) == 4_200
