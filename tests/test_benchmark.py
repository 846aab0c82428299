# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The benchmark command, end to end on a tiny random model, and starting it again."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from eval import benchmark
from eval.generation import Answer
from eval.predictions import PredictionFile
from modeling_mora import MoraForCausalLM, MoraProcessor
from training.data.qm9 import load_qm9

DATA = {"properties": ["homo", "gap"], "train": 8, "validation": 1, "test": 3, "seed": 0}
TINY = {"rank": 2, "target_modules": ["q_proj", "down_proj"]}

pytestmark = pytest.mark.usefixtures("small_qm9")


@pytest.fixture
def checkpoint(
    tmp_path: Path, make_model: Callable[..., MoraForCausalLM], processor: MoraProcessor
) -> Path:
    """A saved model with the settings of its data, as training leaves it."""
    path = tmp_path / "model"
    make_model(**TINY).save_pretrained(path)
    processor.save_pretrained(path)
    (path / "data.json").write_text(json.dumps(DATA))
    return path


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Answers instead of a random model's: numbers with the adapter on, words with it off.

    The list holds what was asked: (prompt, adapter on or off).
    """
    asked = []

    def answer(
        model, processor, prompts, molecules, max_new_tokens, batch_size, use_adapter, description
    ):
        for start in range(0, len(prompts), batch_size):
            rows = range(start, min(start + batch_size, len(prompts)))
            asked.extend((prompts[row], use_adapter) for row in rows)
            text = "0.3000" if use_adapter else "I do not know."
            yield {row: Answer(text, finished=True) for row in rows}

    monkeypatch.setattr(benchmark, "iterate_answers", answer)
    return asked


def run(checkpoint: Path, *flags: str) -> int:
    return benchmark.main(["--model", str(checkpoint), "--batch_size", "2", *flags])


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_saved_model_is_scored_end_to_end(
    checkpoint: Path, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "scores"
    assert run(checkpoint, "--output_dir", str(output)) == 0

    test = load_qm9(**DATA)["test"]
    lines = read_lines(output / "predictions.jsonl")
    keys = {(line["id"], line["property"], line["arm"]) for line in lines}
    assert len(lines) == len(keys) == 2 * len(test) == 12
    answers = {(row["id"], row["property"]): row["answer"] for row in test}
    for line in lines:
        assert line["answer"] == answers[line["id"], line["property"]]
    by_arm = {arm: [x["text"] for x in lines if x["arm"] == arm] for arm in ("base", "mora")}
    assert by_arm["base"] != by_arm["mora"]

    results = json.loads((output / "results.json").read_text())
    assert results["policy"] == "strict"
    assert results["data"] == DATA
    assert results["split_seed"] == 0
    assert set(results["scores"]) == {"homo", "gap"}
    assert results["scores"]["gap"]["mean"]["n"] == 3
    assert results["base_model"] == str(tiny_base)
    assert (output / "parity.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for title in ("predict the mean", "base model without adapter", "MoRA", "strict"):
        assert title in printed


def test_scores_are_those_of_the_answers(checkpoint: Path, scripted: list):
    assert run(checkpoint) == 0
    results = json.loads((checkpoint / "benchmark" / "results.json").read_text())
    data = load_qm9(**DATA)
    for name in ("homo", "gap"):
        true = [float(row["answer"]) for row in data["test"] if row["property"] == name]
        train = [float(row["answer"]) for row in data["train"] if row["property"] == name]
        mean = sum(train) / len(train)
        scores = results["scores"][name]
        assert scores["mora"]["mae"] == pytest.approx(sum(abs(0.3 - t) for t in true) / 3)
        assert scores["mean"]["mae"] == pytest.approx(sum(abs(mean - t) for t in true) / 3)
        assert scores["base"]["mae"] is None
        assert [scores[arm]["parsed_share"] for arm in ("mean", "base", "mora")] == [1, 0, 1]
        assert math.isclose(scores["mora"]["mae_ev"], scores["mora"]["mae"] * 27.211386245988)


def test_a_second_start_asks_only_for_what_is_missing(checkpoint: Path, scripted: list):
    assert run(checkpoint, "--max_examples", "2") == 0
    assert len(scripted) == 4
    path = checkpoint / "benchmark" / "predictions.jsonl"
    first = path.read_text()
    # Stopped in the middle of writing a line.
    path.write_text(first + '{"id": "dsgdb9nsd_00')

    scripted.clear()
    assert run(checkpoint) == 0
    assert len(scripted) == 8
    assert path.read_text().startswith(first)
    assert len(read_lines(path)) == 12
    results = json.loads((checkpoint / "benchmark" / "results.json").read_text())
    assert (results["rows_scored"], results["answers_reused"]) == (6, 4)

    scripted.clear()
    assert run(checkpoint) == 0
    assert scripted == []


def test_answers_are_kept_when_the_run_is_interrupted(
    checkpoint: Path, scripted: list, monkeypatch: pytest.MonkeyPatch
):
    answer = benchmark.iterate_answers

    def interrupted(*args, **kwargs):
        yield next(answer(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "iterate_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint)
    assert len(read_lines(checkpoint / "benchmark" / "predictions.jsonl")) == 2


def test_answers_of_another_model_are_refused(
    checkpoint: Path,
    scripted: list,
    make_model: Callable[..., MoraForCausalLM],
    capsys: pytest.CaptureFixture[str],
):
    assert run(checkpoint) == 0
    before = (checkpoint / "benchmark" / "predictions.jsonl").read_text()
    other = make_model(**TINY)
    next(iter(other.tuner.deltas.values())).B.data.mul_(2)
    other.save_pretrained(checkpoint)
    assert run(checkpoint) == 2
    error = capsys.readouterr().err
    assert "another run" in error
    assert "adapter_sha256" in error
    assert "--output_dir" in error
    assert (checkpoint / "benchmark" / "predictions.jsonl").read_text() == before


def test_answers_to_other_questions_are_refused(
    checkpoint: Path, scripted: list, capsys: pytest.CaptureFixture[str]
):
    assert run(checkpoint) == 0
    (checkpoint / "data.json").write_text(json.dumps(DATA | {"seed": 1}))
    assert run(checkpoint) == 2
    assert "dataset_sha256" in capsys.readouterr().err


def test_predictions_without_run_json_are_refused(tmp_path: Path):
    (tmp_path / "predictions.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"run\.json beside it does not"):
        PredictionFile(tmp_path, {"base_model": "x"})


def test_a_broken_line_is_named(tmp_path: Path):
    PredictionFile(tmp_path, {"base_model": "x"})
    (tmp_path / "predictions.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1"):
        PredictionFile(tmp_path, {"base_model": "x"})


def test_an_answer_may_hold_any_character(tmp_path: Path):
    record = {"id": "1", "property": "gap", "arm": "mora", "text": "a\u2028b\x85c\nd\r−é"}
    PredictionFile(tmp_path, {}).append([record])
    assert PredictionFile(tmp_path, {}).answered == {("1", "gap", "mora"): record}


def test_a_cut_off_answer_is_not_read():
    assert benchmark.read_answer("property_prediction", Answer("0.25", finished=True)) == 0.25
    assert benchmark.read_answer("property_prediction", Answer("0.25", finished=False)) is None


def test_a_model_without_data_settings_is_one_clear_error(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    (checkpoint / "data.json").unlink()
    assert run(checkpoint) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "data.json" in error


@pytest.mark.parametrize("flags", [("--max_examples", "0"), ("--batch_size", "0")])
def test_numbers_below_one_are_refused(flags: tuple[str, str]):
    with pytest.raises(SystemExit):
        benchmark.parse_arguments(["--model", "x", *flags])
