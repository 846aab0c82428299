# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Loss of the right answers: the training's own, by row, control and model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_qm9 import small_qm9  # noqa: F401  (a fixture)

from eval import answer_loss
from eval.generation import load_model
from eval.questions import load_data_of, make_questions, select_rows
from modeling_mora import MoraProcessor
from training.arguments import ModelArguments
from training.collator import MoraCollator
from training.methods.models import make_model
from training.tokenization import tokenize_example

pytestmark = pytest.mark.usefixtures("small_qm9")

DATA = {"properties": ["homo", "gap"], "train": 4, "validation": 1, "test": 4, "seed": 0}
METHODS = ["mora", "lora", "graph_prefix", "full_finetune"]


def save_model(method: str, base: Path, processor: MoraProcessor, path: Path) -> Path:
    """A checkpoint whose adapter changes the base, as training leaves it."""
    args = ModelArguments(method=method, base=str(base), target_modules=["q_proj", "down_proj"])
    model = make_model(args)
    torch.manual_seed(len(method))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(path)
    processor.save_pretrained(path)
    (path / "data.json").write_text(json.dumps(DATA))
    return path


@pytest.fixture
def mora(tiny_base: Path, processor: MoraProcessor, tmp_path: Path) -> Path:
    return save_model("mora", tiny_base, processor, tmp_path / "mora")


@pytest.fixture
def lora(tiny_base: Path, processor: MoraProcessor, tmp_path: Path) -> Path:
    return save_model("lora", tiny_base, processor, tmp_path / "lora")


def ask(path: Path, control: str | None = None) -> list[dict]:
    data = load_data_of(str(path))
    return make_questions(select_rows(data, "test", None, None), control, 0, data.task)


def losses_of(path: Path, processor: MoraProcessor, questions: list[dict], size: int = 3):
    records = answer_loss.read_answers(load_model(str(path)), processor, questions, size)
    return np.array([record["nats"] for record in records])


@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_loss_of_the_training(
    method: str, tiny_base: Path, processor: MoraProcessor, tmp_path: Path
):
    path = save_model(method, tiny_base, processor, tmp_path / method)
    model = load_model(str(path))
    questions = ask(path)
    records = answer_loss.read_answers(model, processor, questions, batch_size=3)
    collate = MoraCollator(processor, graphs=True)
    for record, question in zip(records, questions, strict=True):
        example = tokenize_example(
            question["prompt"], question["reference"], processor.tokenizer, 200
        )
        batch = collate([example | {"molecule": question["graph"]}])
        with torch.no_grad():
            expected = model(**batch).loss.item()
        assert record["tokens"] == (batch["labels"] != -100).sum().item()
        assert record["nats"] / record["tokens"] == pytest.approx(expected, rel=1e-5)
        assert record["id"] == question["id"] and record["control"] is None


def test_batches_do_not_matter(mora: Path, processor: MoraProcessor):
    alone = losses_of(mora, processor, ask(mora), size=1)
    assert losses_of(mora, processor, ask(mora), size=8) == pytest.approx(alone, rel=1e-5)


def test_controls(mora: Path, processor: MoraProcessor, tiny_base: Path, tmp_path: Path):
    own = losses_of(mora, processor, ask(mora))
    shuffled = ask(mora, "shuffled_molecule")
    others = losses_of(mora, processor, shuffled)
    assert np.abs(others - own).min() > 1e-4
    as_own = [question | {"control": None} for question in shuffled]
    assert losses_of(mora, processor, as_own) == pytest.approx(others, rel=1e-5)
    base = losses_of(mora, processor, ask(mora, "base_model"))
    assert losses_of(mora, processor, ask(mora, "no_molecule")) == pytest.approx(base, rel=1e-6)
    assert np.abs(base - own).min() > 1e-4


def test_a_run(mora: Path, lora: Path, capsys: pytest.CaptureFixture[str]):
    assert answer_loss.main(["--model", str(lora)]) == 0
    there = lora / "benchmark"
    flags = ["--model", str(mora), "--controls", "shuffled_molecule,no_string"]
    assert answer_loss.main([*flags, "--than", str(there), "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    summary = json.loads((mora / "benchmark" / answer_loss.SUMMARY).read_text())
    lines = (mora / "benchmark" / answer_loss.ROWS).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    theirs = answer_loss.read_losses(there, summary["run"]["dataset_sha256"])
    assert [row["control"] for row in rows] == [None] * 8 + ["shuffled_molecule"] * 8 + [
        "no_string"
    ] * 8
    assert [row["id"] for row in theirs] == [row["id"] for row in rows[:8]]

    def mean(rows: list[dict]) -> float:
        return sum(row["nats"] for row in rows) / sum(row["tokens"] for row in rows)

    expected = {
        (None, None): mean(rows[:8]),
        ("shuffled_molecule", None): mean(rows[8:16]),
        ("no_string", None): mean(rows[16:]),
        (None, str(there)): mean(theirs),
    }
    assert len(summary["losses"]) == 4
    for one in summary["losses"]:
        value = expected[one["control"], one["than"]]
        assert one["loss"]["value"] == pytest.approx(value)
        assert one["loss"]["low"] < value < one["loss"]["high"]
        assert f"{value:.4f}" in printed
        if (one["control"], one["than"]) == (None, None):
            assert one["difference"] is None
            continue
        difference = one["difference"]
        assert difference["value"] == pytest.approx(value - expected[None, None])
        assert difference["low"] <= difference["value"] <= difference["high"]


def test_what_is_read_is_not_read_again(mora: Path, monkeypatch: pytest.MonkeyPatch):
    read = []

    def counting(model: object, processor: object, questions: list[dict], use_adapter: bool):
        read.extend(question["control"] for question in questions)
        return original(model, processor, questions, use_adapter)

    original = answer_loss.answer_losses
    monkeypatch.setattr(answer_loss, "answer_losses", counting)
    assert answer_loss.main(["--model", str(mora), "--controls", "no_string"]) == 0
    before = answer_loss.read_rows(mora / "benchmark")
    assert answer_loss.main(["--model", str(mora), "--controls", "no_molecule"]) == 0
    assert (read.count(None), read.count("no_string"), read.count("no_molecule")) == (8, 8, 8)
    groups = answer_loss.group_by_control(answer_loss.read_rows(mora / "benchmark"))
    assert list(groups) == [None, "no_molecule", "no_string"]
    assert groups[None] + groups["no_string"] == before
    assert answer_loss.main(["--model", str(mora), "--max_examples", "3"]) == 0  # other rows
    assert read.count(None) == 11 and len(answer_loss.read_rows(mora / "benchmark")) == 3


def test_what_makes_a_row_hard_for_both_cancels():
    nats, tokens = np.array([1.0, 5.0, 2.0]), np.array([3, 4, 6])
    more = answer_loss.with_interval(nats + tokens / 2, tokens, nats, tokens, seed=0)
    assert list(more) == ["value", "low", "high"]
    assert list(more.values()) == pytest.approx([0.5] * 3)


def test_other_rows_are_refused(mora: Path, lora: Path, capsys: pytest.CaptureFixture[str]):
    assert answer_loss.main(["--model", str(lora), "--max_examples", "2"]) == 0
    assert answer_loss.main(["--model", str(mora), "--than", str(lora / "benchmark")]) == 2
    assert "holds the losses of other rows" in capsys.readouterr().err
    assert not (mora / "benchmark").exists()


def test_other_tokens_are_refused():
    row = {"row": 4, "id": "a", "control": None, "tokens": 5}
    with pytest.raises(
        ValueError, match="there: the answer of row 4 has 6 tokens there and 5 here"
    ):
        answer_loss.check_rows([row], [row | {"tokens": 6}], "there")
    answer_loss.check_rows([row], [row], "there")


@pytest.mark.parametrize("other", [{"row": 5}, {"id": "b"}])
def test_losses_of_other_rows_are_refused(other: dict):
    row = {"row": 4, "id": "a", "control": None, "tokens": 5}
    with pytest.raises(ValueError, match="losses of 1 rows, of which 0 are among the 1 here"):
        answer_loss.check_rows([row], [row | other], "there")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--controls", "no_graph"], "--controls no_graph: use no_molecule"),
        (["--batch_size", "0"], "--batch_size 0: must be at least 1"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        answer_loss.parse_arguments(["--model", "m", *flags])
    assert message in capsys.readouterr().err


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert answer_loss.main(["--model", str(tmp_path / "nothing")]) == 2
    assert "holds no data.json" in capsys.readouterr().err
