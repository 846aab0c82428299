# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers on disk: several writers, half-written lines, other runs."""

import json
from pathlib import Path

import pytest

from eval.predictions import PredictionFolder

RUN = {"base_model": "x"}


def record(row: int, control: str | None = None, text: str = "a") -> dict:
    return {"row": row, "control": control, "text": text}


def test_answers_of_all_processes_end_in_one_file_in_order(tmp_path: Path):
    first, second = (PredictionFolder(tmp_path, RUN, process) for process in (0, 1))
    second.append([record(0), record(2, "base_model")])
    first.append([record(1)])
    first.append([record(0, "no_molecule")])
    first.finish([None, "no_molecule", "base_model"])
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").open()]
    assert lines == [record(0), record(1), record(0, "no_molecule"), record(2, "base_model")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.jsonl", "run.json"]


def test_another_start_knows_what_all_processes_have_answered(tmp_path: Path):
    PredictionFolder(tmp_path, RUN, 0).append([record(0)])
    PredictionFolder(tmp_path, RUN, 3).append([record(1)])
    assert PredictionFolder(tmp_path, RUN).answered == {(None, 0): record(0), (None, 1): record(1)}
    finished = PredictionFolder(tmp_path, RUN)
    finished.finish([None])
    assert PredictionFolder(tmp_path, RUN).answered == finished.answered


def test_half_a_line_is_forgotten_and_written_over(tmp_path: Path):
    PredictionFolder(tmp_path, RUN).append([record(0)])
    path = tmp_path / "answers-00000.jsonl"
    with path.open("a") as file:
        file.write('{"row": 1, "con')
    # Another process reads the same file, and does not touch it.
    assert PredictionFolder(tmp_path, RUN, process=1).answered == {(None, 0): record(0)}
    again = PredictionFolder(tmp_path, RUN)
    assert again.answered == {(None, 0): record(0)}
    again.append([record(1)])
    assert [json.loads(line) for line in path.open()] == [record(0), record(1)]


def test_a_run_killed_while_it_finished_loses_nothing(tmp_path: Path):
    folder = PredictionFolder(tmp_path, RUN)
    folder.append([record(0), record(1)])
    part = (tmp_path / "answers-00000.jsonl").read_text()
    folder.finish([None])
    final = (tmp_path / "predictions.jsonl").read_text()
    (tmp_path / "answers-00000.jsonl").write_text(part)  # as if killed before it was deleted
    PredictionFolder(tmp_path, RUN).finish([None])
    assert (tmp_path / "predictions.jsonl").read_text() == final


def test_answers_of_another_run_are_refused(tmp_path: Path):
    PredictionFolder(tmp_path, RUN).append([record(0)])
    with pytest.raises(ValueError, match="another run .base_model is 'y' but was 'x'"):
        PredictionFolder(tmp_path, {"base_model": "y"})
    with pytest.raises(ValueError, match="batch_size is 4 but was None"):
        PredictionFolder(tmp_path, RUN | {"batch_size": 4})


def test_a_folder_from_before_numbers_could_be_chosen_is_greedy(tmp_path: Path):
    PredictionFolder(tmp_path, RUN).append([record(0)])
    again = PredictionFolder(tmp_path, RUN | {"numbers": "greedy"})
    assert again.answered == {(None, 0): record(0)}
    with pytest.raises(ValueError, match="numbers is 'median' but was 'greedy'"):
        PredictionFolder(tmp_path, RUN | {"numbers": "median"})


def test_a_run_without_answers_may_be_another_one(tmp_path: Path):
    PredictionFolder(tmp_path, RUN)
    PredictionFolder(tmp_path, {"base_model": "y"}).append([record(0)])
    assert PredictionFolder(tmp_path, {"base_model": "y"}).answered


def test_answers_without_run_json_are_refused(tmp_path: Path):
    (tmp_path / "predictions.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"holds answers but no run\.json"):
        PredictionFolder(tmp_path, RUN)


def test_a_broken_line_is_named(tmp_path: Path):
    PredictionFolder(tmp_path, RUN)
    (tmp_path / "predictions.jsonl").write_text(json.dumps(record(0)) + "\n[1]\n")
    with pytest.raises(ValueError, match=r"predictions\.jsonl, line 2"):
        PredictionFolder(tmp_path, RUN)


def test_an_answer_may_hold_any_character(tmp_path: Path):
    strange = record(0, text="a\u2028b\x85c\nd\r−é")
    PredictionFolder(tmp_path, RUN).append([strange])
    assert PredictionFolder(tmp_path, RUN).answered == {(None, 0): strange}
