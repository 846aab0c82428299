# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading results and predictions: what is found, and what is refused."""

import json
from pathlib import Path

import pytest
from result_files import write_results

from eval.result_files import ResultFileError, read_runs


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of eight rows with one control."""
    return write_results(tmp_path / "run", n=8, controls=("no_molecule",))


def change(path: Path, **changes) -> None:
    """Change keys of a JSON file, or, for None, take them away."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def predictions(path: Path) -> Path:
    return path.with_name("predictions.jsonl")


def test_files_and_folders_are_read_once_each(tmp_path: Path, results: Path):
    other = write_results(tmp_path / "deep" / "er", n=3, model="other")
    runs = read_runs([results, tmp_path, results.parent])
    assert [(run.number, run.path) for run in runs] == [(1, results), (2, other)]
    assert [run.model for run in runs] == ["runs/toy-mora", "other"]


def test_rows_by_control_and_property(tmp_path: Path):
    path = write_results(
        tmp_path, "property_prediction", n=4, properties=("homo", "gap"), controls=("base_model",)
    )
    [run] = read_runs([path])
    assert len(run.lines) == 16
    assert len(run.rows("property_prediction", "toy")) == 8
    found = run.rows("property_prediction", "toy", "base_model", "gap")
    assert [row["id"] for row in found] == ["toy-0", "toy-1", "toy-2", "toy-3"]
    assert {(row["control"], row["property"]) for row in found} == {("base_model", "gap")}


def test_scores_as_they_stand_in_the_file(results: Path):
    written = json.loads(results.read_text())["scores"]
    [run] = read_runs([results])
    assert [score.control for score in run.scores] == [None, "no_molecule"]
    for score, entry in zip(run.scores, written, strict=True):
        assert score.n == entry["n"] == 8
        value = entry["metrics"]["exact_match"]
        found = score.metrics["exact_match"]
        assert (found.value, found.low, found.high) == (value["value"], value["low"], value["high"])


def test_missing_files(tmp_path: Path, results: Path):
    with pytest.raises(ResultFileError, match="nowhere does not exist: pass a results.json"):
        read_runs([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultFileError, match="empty holds no results.json"):
        read_runs([tmp_path / "empty"])
    predictions(results).unlink()
    with pytest.raises(ResultFileError, match="predictions.jsonl is missing.*keep it beside"):
        read_runs([results])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": None}, "has schema None, but this report reads schema 1: score the model"),
        ({"schema": 2}, "has schema 2"),
        ({"adapter_sha256": None, "seeds": None}, "lacks adapter_sha256, seeds"),
        ({"data": {"name": "x"}}, "lacks data.split, data.dataset_sha256"),
        ({"policy": "lenient"}, "policy is 'lenient'.*it knows strict, published"),
        ({"scores": []}, "holds no scores"),
        ({"scores": [{"task": "retrosynthesis"}]}, r"lacks scores\[0\]\.source"),
    ],
)
def test_results_of_another_form(results: Path, changes: dict, message: str):
    change(results, **changes)
    with pytest.raises(ResultFileError, match=message) as caught:
        read_runs([results])
    assert str(results) in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("task", "translation"), ("control", "dropout")])
def test_unknown_names(results: Path, key: str, value: str):
    scores = json.loads(results.read_text())["scores"]
    scores[1][key] = value
    change(results, scores=scores)
    with pytest.raises(ResultFileError, match=rf"scores\[1\]\.{key} is '{value}'.*it knows"):
        read_runs([results])


def test_old_results_are_refused(tmp_path: Path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"task": "property_prediction", "scores": {"gap": {}}}))
    with pytest.raises(ResultFileError, match="schema None"):
        read_runs([path])
    path.write_text("[")
    with pytest.raises(ResultFileError, match="cannot be read as JSON"):
        read_runs([path])


def test_predictions_of_another_run_are_refused(results: Path):
    lines = predictions(results).read_text().splitlines(keepends=True)
    predictions(results).write_text("".join(lines[:-1]))
    message = "holds 7 predictions for retrosynthesis, toy, no_molecule, but results.json counts 8"
    with pytest.raises(ResultFileError, match=message):
        read_runs([results])


def test_a_row_twice_is_refused(results: Path):
    scores = json.loads(results.read_text())["scores"]
    scores[1]["n"] = 9
    change(results, scores=scores)
    lines = predictions(results).read_text().splitlines(keepends=True)
    predictions(results).write_text("".join([*lines, lines[-1]]))
    with pytest.raises(ResultFileError, match="holds row 'toy-7' more than once"):
        read_runs([results])


def test_predictions_that_nobody_scored_are_left_alone(results: Path):
    scores = json.loads(results.read_text())["scores"]
    change(results, scores=scores[:1])
    [run] = read_runs([results])
    assert len(run.scores) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 1', "ends in the middle of a line: the benchmark was stopped"),
        ("[1]\n", "line 17"),
        ('{"id": "x"}\n', "line 17 lacks source, task"),
    ],
)
def test_broken_lines(results: Path, line: str, message: str):
    with predictions(results).open("a") as file:
        file.write(line)
    with pytest.raises(ResultFileError, match=message):
        read_runs([results])


def test_an_answer_may_hold_any_character(tmp_path: Path):
    text = "a\u2028b\x85c\nd\r−é"
    path = write_results(tmp_path, n=1, answer=lambda row: {"text": text})
    assert read_runs([path])[0].lines[0]["text"] == text
