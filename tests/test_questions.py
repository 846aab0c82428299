# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What a benchmark asks: which rows, under which controls, and how long an answer may get."""

import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

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
from modeling_mora import MoraProcessor


def example(number: int, molecule: str, answer: str = "0.1", task: str = "property_prediction"):
    return {
        "task": task,
        "prompt": f"What of {molecule}?",
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
    assert [row["row"] for row in select_rows(data, "test", None, 2)] == [0, 1]


def test_unknown_splits_tasks_and_empty_splits_are_named(data: BenchmarkData):
    with pytest.raises(ValueError, match="no split 'valid': use one of train, test"):
        select_rows(data, "valid", None, None)
    with pytest.raises(ValueError, match="no 'retrosynthesis' in split 'test': it asks property"):
        select_rows(data, "test", ["retrosynthesis"], None)
    data.splits["test"] = data.splits["test"].select([])
    with pytest.raises(ValueError, match="is empty"):
        select_rows(data, "test", None, None)


def test_controls_change_the_graph_alone(data: BenchmarkData):
    rows = select_rows(data, "test", None, None)
    asked = {name: make_questions(rows, name, seed=0) for name in (None, *CONTROLS)}
    for name, questions in asked.items():
        assert [q["control"] for q in questions] == [name] * 4
        for question, original in zip(questions, asked[None], strict=True):
            assert question | {"control": None, "graph": None} == original | {"graph": None}
    graphs = {name: [q["graph"] for q in questions] for name, questions in asked.items()}
    assert graphs[None] == ["CCO", "C", "C", "CC"]
    assert graphs["no_molecule"] == graphs["base_model"] == [None] * 4
    shuffled = graphs["shuffled_molecule"]
    assert sorted(set(shuffled)) == ["C", "CC", "CCO"]
    assert all(a != b for a, b in zip(shuffled, graphs[None], strict=True))
    assert shuffled[1] == shuffled[2]  # two questions about one molecule


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
