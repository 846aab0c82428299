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

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("datasets_cache")]
FOLDER = "tests/lm_eval_tasks"
TASKS = {"everyday_choice": "acc,none", "everyday_answer": "exact_match,stripped"}


def by_command(model: Path, home: Path, *flags: str) -> dict[str, float]:
    """Run the command of the README; returns each task's score."""
    command = [
        *[str(Path(sys.executable).with_name("lm_eval")), "--model", "hf"],
        *["--model_args", f"pretrained={model},trust_remote_code=True"],
        *["--include_path", FOLDER, "--tasks", ",".join(TASKS), *flags],
        *["--device", "cpu", "--output_path", str(home / "results")],
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    [path] = home.rglob("results_*.json")
    return scores_of(json.loads(path.read_text()))


def scores_of(results: dict) -> dict[str, float]:
    return {task: results["results"][task][metric] for task, metric in TASKS.items()}


def evaluate(model: Path | str, **settings: object) -> dict:
    """The same in this process, without reading lm_eval's own 13,000 tasks, which takes longer."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    return simple_evaluate(
        model="hf",
        model_args=f"pretrained={model},trust_remote_code=True",
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=FOLDER, include_defaults=False),
        device="cpu",
        **settings,
    )


def assert_same(checkpoint: Path, base: Path | str, **settings: object) -> dict[str, float]:
    """Same scores, and the same loglikelihoods and texts in each row; returns the scores."""
    found, expected = (evaluate(model, **settings) for model in (checkpoint, base))
    assert scores_of(found) == scores_of(expected)
    for task in TASKS:
        rows, base_rows = found["samples"][task], expected["samples"][task]
        assert len(rows) == 12
        for row, base_row in zip(rows, base_rows, strict=True):
            assert row["arguments"] == base_row["arguments"]
            assert row["resps"] == base_row["resps"]
    return scores_of(found)


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
    assert_same(checkpoint, tiny_base, batch_size=3, num_fewshot=11, apply_chat_template=True)


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
    scores = assert_same(checkpoint, base, batch_size=4, num_fewshot=3)
    assert min(scores.values()) > 0.5
    flags = ["--batch_size", "4", "--num_fewshot", "3"]
    assert by_command(checkpoint, tmp_path / "home", *flags) == scores
