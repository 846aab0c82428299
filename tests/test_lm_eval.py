# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint under EleutherAI's `lm_eval`: its numbers for text are those of the base model."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from modeling_mora import MoleculeFeatureExtractor, MoraForCausalLM, MoraProcessor
from modeling_mora.base_models_mora import resolve_base

pytestmark = pytest.mark.slow
TASKS = {"everyday_choice": "acc,none", "everyday_answer": "exact_match,stripped"}


def evaluate(model: Path | str, home: Path, *flags: str) -> tuple[dict, dict]:
    """Run the command of the README; returns each task's score, and what it logged of each row."""
    command = [
        *[str(Path(sys.executable).with_name("lm_eval")), "--model", "hf"],
        *["--model_args", f"pretrained={model},trust_remote_code=True"],
        *["--include_path", "tests/lm_eval_tasks", "--tasks", ",".join(TASKS), *flags],
        *["--device", "cpu", "--output_path", str(home / "results"), "--log_samples"],
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    [path] = home.rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    scores = {task: results[task][metric] for task, metric in TASKS.items()}
    rows = {}
    for task in TASKS:
        [path] = home.rglob(f"samples_{task}_*.jsonl")
        rows[task] = [json.loads(line) for line in path.read_text().splitlines()]
    return scores, rows


def assert_same(checkpoint: Path, base: Path | str, tmp_path: Path, *flags: str) -> dict:
    """Same scores, and the same loglikelihoods and texts in each row; returns the scores."""
    scores, rows = evaluate(checkpoint, tmp_path / "mora", *flags)
    base_scores, base_rows = evaluate(base, tmp_path / "base", *flags)
    assert scores == base_scores
    for task in TASKS:
        assert len(rows[task]) == 12
        for row, base_row in zip(rows[task], base_rows[task], strict=True):
            assert row["arguments"] == base_row["arguments"]
            assert row["resps"] == base_row["resps"]
    return scores


def test_tiny_base(
    tmp_path: Path,
    tiny_base: Path,
    make_model: Callable[..., MoraForCausalLM],
    processor: MoraProcessor,
):
    """With chats of examples longer than the base model reads: they are cut alike."""
    checkpoint = tmp_path / "checkpoint"
    make_model().save_pretrained(checkpoint)
    processor.save_pretrained(checkpoint)
    flags = ["--batch_size", "3", "--num_fewshot", "11", "--apply_chat_template"]
    assert_same(checkpoint, tiny_base, tmp_path, *flags)


def test_real_base(tmp_path: Path):
    """SmolLM2, which answers most of the questions."""
    base = resolve_base("smollm2")
    torch.manual_seed(0)
    model = MoraForCausalLM.from_base(base, target_modules="all-linear")
    with torch.no_grad():
        for delta in model.tuner.deltas.values():
            delta.B.normal_(std=0.02)
    checkpoint = tmp_path / "checkpoint"
    model.save_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(base)
    MoraProcessor(MoleculeFeatureExtractor(), tokenizer).save_pretrained(checkpoint)
    scores = assert_same(checkpoint, base, tmp_path, "--batch_size", "4", "--num_fewshot", "3")
    assert min(scores.values()) > 0.5
