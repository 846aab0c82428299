# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""What the frozen LLM keeps: the command, its perplexity, and that a changed base is found."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from eval import retention
from modeling_mora import MoraForCausalLM, MoraProcessor

TEXT = "Is water wet?\n\nRain falls on hills and runs along the smallest hollows.\nWho asks ?\n"


@pytest.fixture
def checkpoint(
    tmp_path: Path, make_model: Callable[..., MoraForCausalLM], processor: MoraProcessor
) -> Path:
    path = tmp_path / "model"
    make_model().save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def run(checkpoint: Path, text: Path, *flags: str) -> int:
    short = ["--window", "32", "--stride", "20", "--max_new_tokens", "3"]
    return retention.main(["--model", str(checkpoint), "--text", str(text), *short, *flags])


def read_results(checkpoint: Path) -> dict:
    return json.loads((checkpoint / "retention" / "retention.json").read_text())


@torch.no_grad()
def perplexity_token_by_token(base: Path, ids: list[int], window: int, stride: int) -> float:
    """Each token after the last of the window that ends at or behind it and begins earliest."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    losses = []
    for position in range(1, len(ids)):
        start = 0
        while position >= start + window:
            start += stride
        logits = model(torch.tensor([ids[start:position]])).logits[0, -1]
        losses.append(-torch.log_softmax(logits, dim=-1)[ids[position]].item())
    return math.exp(sum(losses) / len(losses))


def base_answer(base: Path, tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    model = AutoModelForCausalLM.from_pretrained(base)
    tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    new = tokens[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip()


def test_command(
    checkpoint: Path,
    text: Path,
    tiny_base: Path,
    tokenizer: PreTrainedTokenizerFast,
    capsys: pytest.CaptureFixture[str],
):
    assert run(checkpoint, text, "--molecule", "CCO") == 0
    results = read_results(checkpoint)
    ids = tokenizer(TEXT)["input_ids"]
    expected = perplexity_token_by_token(tiny_base, ids, window=32, stride=20)
    perplexity = results["perplexity"]
    assert perplexity["base"] == pytest.approx(expected, rel=1e-5)
    assert perplexity["no_molecule"] == perplexity["disabled"] == perplexity["base"]
    assert perplexity["molecule"] != perplexity["base"]
    assert results["bit_identical_to_base"] == {
        "no_molecule": True,
        "disabled": True,
        "molecule": False,
    }
    assert results["tokens_scored"] == len(ids) - 1
    assert (results["window"], results["stride"]) == (32, 20)
    assert results["windows"] == 1 + math.ceil((len(ids) - 32) / 20)
    assert [answer["question"] for answer in results["answers"]] == ["Is water wet?", "Who asks ?"]
    for answer in results["answers"]:
        assert answer["off"] == base_answer(tiny_base, tokenizer, answer["question"])
    same = sum(answer["on"] == answer["off"] for answer in results["answers"])
    assert results["answers_same"] == same < 2
    assert results["command"].startswith("python -m eval.retention --model ")
    assert (results["molecule"], results["text"]) == ("CCO", "text.txt")

    printed = capsys.readouterr().out
    assert f"{len(ids) - 1} tokens in {results['windows']} windows" in printed
    assert f"{same} of 2 are the same" in printed
    rows = [line for line in printed.splitlines() if "MoRA" in line]
    assert ["yes" in row for row in rows] == [True, True, False]
    assert "Is water wet?" in printed


def test_a_base_in_bfloat16(
    tmp_path: Path,
    tiny_base: Path,
    make_model: Callable[..., MoraForCausalLM],
    processor: MoraProcessor,
    text: Path,
):
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.bfloat16).save_pretrained(base)
    make_model(base=base).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    assert run(tmp_path / "model", text) == 0
    assert read_results(tmp_path / "model")["dtype"] == "bfloat16"


def test_a_changed_base_is_found(
    tmp_path: Path,
    make_model: Callable[..., MoraForCausalLM],
    processor: MoraProcessor,
    text: Path,
    capsys: pytest.CaptureFixture[str],
):
    """As when somebody has trained the base too, and saved it with the adapter."""
    model = make_model()
    with torch.no_grad():
        model.language_model.model.norm.weight[0] += 1e-4
    model.save_pretrained(tmp_path / "model", save_base=True)
    processor.save_pretrained(tmp_path / "model")
    assert run(tmp_path / "model", text) == 1
    expected = {"no_molecule": False, "disabled": False, "molecule": False}
    assert read_results(tmp_path / "model")["bit_identical_to_base"] == expected
    captured = capsys.readouterr()
    assert "differ from the base model's: MoRA, no molecule, MoRA, adapter disabled" in captured.err


@pytest.mark.parametrize(("window", "stride"), [(4, 1), (4, 2), (4, 3), (100, 7)])
@pytest.mark.parametrize("tokens", [2, 3, 4, 5, 8, 9, 21])
def test_windows_score_each_token_once(tokens: int, window: int, stride: int):
    windows = retention.split_windows(tokens, window, stride)
    scored = [token for _, first, end in windows for token in range(first, end)]
    assert scored == list(range(1, tokens))
    for start, first, end in windows:
        assert start < first < end <= start + window


def test_a_text_without_questions(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "plain.txt"
    path.write_text("Rain falls.")
    assert run(checkpoint, path) == 0
    assert "nothing was asked" in capsys.readouterr().out
    assert read_results(checkpoint)["answers"] == []


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (b" \n", [], "is empty"),
        (b"\xff\xfea", [], "is no text in UTF-8"),
        (b"a", [], "holds one token"),
        (None, [], "No such file"),
        (b"Rain falls.", ["--molecule", "CC("], "'CC(' is not a valid"),
        (b"Rain falls.", ["--window", "600"], "--window 600: the base model reads 512 tokens"),
    ],
)
def test_bad_input_is_one_clear_error(
    checkpoint: Path,
    tmp_path: Path,
    content: bytes | None,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
):
    path = tmp_path / "given.txt"
    if content is not None:
        path.write_bytes(content)
    assert run(checkpoint, path, *flags) == 2
    error = capsys.readouterr().err
    assert "error: " in error
    assert message in error
    assert not (checkpoint / "retention").exists()


def test_a_plain_llm_is_a_clear_error(
    tiny_base: Path, text: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(tiny_base, text) == 2
    assert "is a llama model, not a MoRA checkpoint" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_compared(
    tmp_path: Path,
    make_model: Callable[..., MoraForCausalLM],
    processor: MoraProcessor,
    text: Path,
    capsys: pytest.CaptureFixture[str],
):
    model = make_model()
    model.resize_token_embeddings(model.config.text_config.vocab_size + 1, mean_resizing=False)
    model.save_pretrained(tmp_path / "resized")
    model.config.base_model_name_or_path = None
    model.config.resized_embeddings = False
    model.save_pretrained(tmp_path / "nameless", save_base=True)
    for name, message in (("resized", "vocabulary"), ("nameless", "names no base model")):
        processor.save_pretrained(tmp_path / name)
        assert run(tmp_path / name, text) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [["--stride", "0"], ["--window", "20"], ["--max_new_tokens", "0"], ["--batch_size", "0"]],
)
def test_impossible_numbers(checkpoint: Path, text: Path, flags: list[str]):
    with pytest.raises(SystemExit):
        run(checkpoint, text, *flags)


def test_the_text_of_the_project_can_be_scored_and_asked():
    content, questions = retention.read_text(retention.DEFAULT_TEXT)
    assert len(content.split()) > 800
    assert len(questions) >= 10
