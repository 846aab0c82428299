# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows to examples and rejections: columns, reasons, limits, cache, streams."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import pytest
from datasets import Dataset
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from modeling_mora import MoleculeFeatureExtractor
from modeling_mora.molecules_mora import MoleculeError, parse_molecule
from modeling_mora.tasks_mora import Property, PropertyPrediction, get_task
from training.data import build, qm9
from training.data.build import COLUMNS, build_examples
from training.data.rejections import RejectedRowError, TooManyRejectedError, kind_of
from training.data.source import RawExample, RowError, Source

ROWS = [
    {"id": "good", "molecule": "OCC", "a": 1.5, "b": -2.0},
    {"id": "bad molecule", "molecule": "c1cccc", "a": 1.0, "b": 2.0},
    {"id": "placeholder", "molecule": "*CC", "a": 1.0, "b": 2.0},
    {"id": "large", "molecule": "C" * 30, "a": 1.0, "b": 2.0},
    {"id": "bad answer", "molecule": "CCC", "a": float("nan"), "b": 2.0},
    {"id": "gap", "molecule": "CCCC", "a": None, "b": 2.0},
    {"id": "unreadable", "molecule": "", "a": 1.0, "b": 2.0},
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def read_two(row: dict) -> list[RawExample]:
    if not row["molecule"]:
        raise RowError("molecule", row["molecule"], "there is no molecule")
    return [
        RawExample(row["id"], row["molecule"], row[name], {"property": name}, ("molecule", name))
        for name in ("a", "b")
        if row[name] is not None
    ]


def two_properties(rows: list[dict] = ROWS, **settings) -> Source:
    properties = {"a": Property("boiling point", "K"), "b": Property("log P")}
    return Source(
        name="two",
        task="property_prediction",
        splits={"all": Dataset.from_list(rows)},
        read=read_two,
        task_settings={"properties": properties, **settings},
        molecule_format="smiles",
    )


def read_reaction(row: dict, task: str) -> list[RawExample]:
    options = {"reagents": row["reagents"]} if task == "forward_reaction_prediction" else {}
    return [RawExample(row["id"], row["molecule"], row["answer"], options)]


def reactions(task: str, rows: list[dict], **settings) -> Source:
    read = partial(read_reaction, task=task)
    return Source("rxn", task, {"all": Dataset.from_list(rows)}, read, settings, "smiles")


def small_extractor() -> MoleculeFeatureExtractor:
    return MoleculeFeatureExtractor(max_atoms=20)


def read_rejected(path: Path) -> dict[str, dict]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return {entry["id"]: entry for entry in entries}


def test_examples_have_exactly_the_columns(tmp_path: Path):
    data, rejections = build_examples(two_properties(), small_extractor(), max_rejected=1)
    assert tuple(data["all"].column_names) == COLUMNS
    assert data["all"][0] == {
        "task": "property_prediction",
        "prompt": "boiling point of CCO in K?",
        "answer": "1.5000",
        "molecule": "CCO",  # canonical, unlike the row's
        "id": "good",
        "source": "two",
        "property": "a",
        "group": None,
    }
    assert data["all"]["id"][:] == ["good", "good", "bad answer", "gap"]
    assert rejections.accepted == 4


def test_each_bad_row_is_written_with_its_reason(tmp_path: Path):
    path = tmp_path / "rejected.jsonl"
    _, rejections = build_examples(
        two_properties(), small_extractor(), max_rejected=1, rejected_path=path
    )
    found = read_rejected(path)
    assert set(found["large"]) == {"source", "split", "id", "row", "column", "value", "reason"}
    expected = {
        "bad molecule": ("molecule", "c1cccc", "not a valid SMILES"),
        "placeholder": ("molecule", "*CC", "placeholder"),
        "large": ("molecule", "C" * 30, "max_atoms=20"),
        "bad answer": ("a", None, "is not a finite number"),
        "unreadable": ("molecule", "", "there is no molecule"),
    }
    assert set(found) == set(expected)
    for id, (column, value, reason) in expected.items():
        assert found[id]["column"] == column
        assert reason in found[id]["reason"]
        assert (found[id]["source"], found[id]["split"]) == ("two", "all")
        if value is not None:
            assert found[id]["value"] == value
    # Both questions about a bad molecule are lost, but it is one bad row.
    assert (len(rejections), rejections.lost) == (5, 3 * 2 + 1 + 1)


def test_too_many_rejected_stop_the_run_after_the_file_is_written(tmp_path: Path):
    path = tmp_path / "rejected.jsonl"
    with pytest.raises(TooManyRejectedError, match=r"8 of 12 examples.*max_rejected=0\.5") as error:
        build_examples(two_properties(), small_extractor(), max_rejected=0.5, rejected_path=path)
    assert str(path) in str(error.value)
    assert len(read_rejected(path)) == 5
    build_examples(two_properties(), small_extractor(), max_rejected=0.7)


@pytest.mark.parametrize("num_proc", [None, 2])
def test_strict_names_the_first_bad_row(num_proc: int | None):
    with pytest.raises(
        RejectedRowError,
        match="row 2 \\('bad molecule'\\), column 'molecule' holds 'c1cccc': .*SMILES",
    ):
        build_examples(two_properties(), small_extractor(), strict=True, num_proc=num_proc)


def test_several_processes_give_the_same():
    one, _ = build_examples(two_properties(), small_extractor(), max_rejected=1)
    two, rejections = build_examples(
        two_properties(), small_extractor(), max_rejected=1, num_proc=2
    )
    assert one["all"].to_list() == two["all"].to_list()
    assert len(rejections) == 5


def test_a_molecule_is_parsed_once_for_all_its_questions(monkeypatch: pytest.MonkeyPatch):
    calls = Counter()
    read = PropertyPrediction.read

    def counted(self, molecule, *args):
        calls[molecule] += 1
        return read(self, molecule, *args)

    monkeypatch.setattr(PropertyPrediction, "read", counted)
    build_examples(two_properties(), small_extractor(), max_rejected=1)
    assert calls == {row["molecule"]: 1 for row in ROWS if row["molecule"]}


def test_second_start_uses_the_cache(monkeypatch: pytest.MonkeyPatch):
    first, _ = build_examples(two_properties(), small_extractor(), max_rejected=1)
    built = []
    build_row = build._build_row
    monkeypatch.setattr(
        build, "_build_row", lambda row, *args: built.append(row) or build_row(row, *args)
    )
    again, rejections = build_examples(two_properties(), small_extractor(), max_rejected=1)
    assert built == []
    assert again["all"].to_list() == first["all"].to_list()
    assert len(rejections) == 5  # counted again, though nothing was computed

    selfies = two_properties(notation="selfies")
    others, _ = build_examples(selfies, small_extractor(), max_rejected=1)
    assert len(built) == len(ROWS)
    assert others["all"][0]["prompt"] == "boiling point of [C][C][O] in K?"
    build_examples(two_properties(), MoleculeFeatureExtractor(max_atoms=40), max_rejected=1)
    assert len(built) == 2 * len(ROWS)
    monkeypatch.setattr(build, "code_fingerprint", lambda read: "changed code")
    build_examples(two_properties(), small_extractor(), max_rejected=1)
    assert len(built) == 3 * len(ROWS)


def test_streams_are_read_when_asked_for_and_count_rejections(tmp_path: Path):
    source = two_properties()
    whole, _ = build_examples(source, small_extractor(), max_rejected=1)
    path = tmp_path / "rejected.jsonl"
    streams = {"all": source.splits["all"].to_iterable_dataset()}
    data, rejections = build_examples(
        replace(source, splits=streams), small_extractor(), rejected_path=path
    )
    assert (rejections.accepted, len(rejections)) == (0, 0)
    assert tuple(data["all"].features) == COLUMNS  # so that mixing need not look
    assert list(data["all"]) == whole["all"].to_list()
    assert (rejections.accepted, len(rejections)) == (4, 5)
    assert len(read_rejected(path)) == 5
    list(data["all"])
    assert len(path.read_text().splitlines()) == 5  # a second pass writes nothing twice


def test_a_bad_stream_stops_while_it_is_read():
    rows = [{"id": str(n), "molecule": "C(" if n % 2 else "C", "a": 1.0} for n in range(3000)]
    source = two_properties([row | {"b": None} for row in rows])
    streams = {"all": source.splits["all"].to_iterable_dataset()}
    data, rejections = build_examples(replace(source, splits=streams), small_extractor())
    with pytest.raises(TooManyRejectedError, match="max_rejected=0.05"):
        list(data["all"])
    assert rejections.accepted + rejections.lost < 1100


def test_wordings_are_mixed_by_the_question():
    rows = [{"id": str(n), "molecule": "C" * n, "a": 1.0, "b": 2.0} for n in [*range(1, 20), 3]]
    first, _ = build_examples(two_properties(rows), small_extractor())
    mixed, _ = build_examples(two_properties(rows), small_extractor(), phrasings="mixed")
    task = get_task("property_prediction", **two_properties().task_settings)
    used = set()
    for row in mixed["all"]:
        options = (row["molecule"], row["property"])
        wordings = [task.question(*options, phrasing=n) for n in range(len(task.prompts))]
        used.add(wordings.index(row["prompt"]))
    assert used == set(range(len(task.prompts)))
    assert all("What" not in prompt for prompt in first["all"]["prompt"])
    prompts = {row["id"]: row["prompt"] for row in mixed["all"] if row["property"] == "a"}
    assert mixed["all"][-2]["prompt"] == prompts["3"]  # propane is there twice
    with pytest.raises(ValueError, match="phrasings='all'"):
        build_examples(two_properties(rows), small_extractor(), phrasings="all")


def test_graph_of_a_reaction_is_canonical_and_reagents_are_checked():
    rows = [
        {"id": "r", "molecule": "OCC.CC(O)=O>>CC(=O)C", "answer": "OS(O)(=O)=O"},
        {"id": "no arrow", "molecule": "CCO", "answer": "O"},
    ]
    rows = [row | {"reagents": None} for row in rows]
    data, rejections = build_examples(
        reactions("reagent_prediction", rows), small_extractor(), phrasings="first", max_rejected=1
    )
    (row,) = data["all"]
    assert row["prompt"].endswith("CC(=O)O.CCO>>CC(C)=O")
    assert row["molecule"] == "CC(=O)O.CC(C)=O.CCO"  # not in the order of the reaction
    assert row["answer"] == "O=S(=O)(O)O"
    assert row["property"] is None
    assert "no reaction" in next(iter(rejections.kinds))

    rows = [
        {"id": "good", "molecule": "OCC", "answer": "CCCl", "reagents": "Cl.OCC"},
        {"id": "bad", "molecule": "OCC", "answer": "CCCl", "reagents": "Cl("},
        {"id": "bad product", "molecule": "OCC", "answer": "CCCl(", "reagents": None},
    ]
    data, rejections = build_examples(
        reactions("forward_reaction_prediction", rows), small_extractor(), max_rejected=1
    )
    assert data["all"]["id"][:] == ["good"]
    assert "CCO.Cl" in data["all"][0]["prompt"]
    assert {kind.split(":")[0] for kind in rejections.kinds} == {"reagents", "answer"}


def test_answers_that_selfies_changes_are_rejected(monkeypatch: pytest.MonkeyPatch):
    rows = [{"id": "r", "molecule": "OCC", "answer": "CCCl", "reagents": None}]
    source = reactions("forward_reaction_prediction", rows, notation="selfies")
    data, _ = build_examples(source, small_extractor())
    assert data["all"]["answer"][:] == ["[C][C][Cl]"]
    # As if SELFIES had lost the chlorine.
    task = type(get_task(source.task))
    monkeypatch.setattr(task, "spell", lambda self, smiles: "[C][C]")
    monkeypatch.setattr(build, "code_fingerprint", lambda read: "changed code")
    _, rejections = build_examples(source, small_extractor(), max_rejected=1)
    assert rejections.lost == 1
    assert "not read back" in next(iter(rejections.kinds))


@pytest.mark.usefixtures("small_qm9")
def test_all_of_qm9_is_a_source():
    source = qm9.qm9_source(["gap", "homo"])
    data, rejections = build_examples(source, small_extractor(), max_rejected=0.1)
    assert len(data["all"]) == 2 * 18  # ethanol twice, and one that is no molecule
    assert next(iter(rejections.kinds)).startswith("SMILES: ")
    asked = qm9.load_qm9(["gap", "homo"], train=17, validation=0, test=0)["train"]
    known = {(row["id"], row["property"]): row for row in data["all"]}
    for row in asked:
        assert row == known[row["id"], row["property"]]
    with pytest.raises(ValueError, match="choose from"):
        qm9.qm9_source(["mass"])


def test_kinds_leave_names_numbers_and_advice_out():
    long = f"Molecule 'C{'C' * 200}… has 300 heavy atoms, more than max_atoms=256: drop the row or"
    assert kind_of("s", long) == "s: has # heavy atoms, more than max_atoms=256"
    one = "Row 3: Molecule 'CC(' is not a valid SMILES: extra open. Correct it or drop the row."
    two = "Row 14: Molecule 'NN(' is not a valid SMILES: extra open. Correct it or drop the row."
    assert kind_of("s", one) == kind_of("s", two) == "s: is not a valid SMILES: extra open"
    valence = "Explicit valence for an atom is greater than permitted"
    for smiles, reason in {"c1cc(C": "extra open parentheses", "N(=O)(=O)=O": valence}.items():
        with pytest.raises(MoleculeError) as error:
            parse_molecule(smiles)
        assert kind_of("s", str(error.value)) == f"s: is not a valid SMILES: {reason}"
    number = "'x' is not a number: write a number or drop the row."
    assert kind_of("s", number) == "s: is not a number"
