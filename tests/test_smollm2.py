# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""End to end on the real SmolLM2-135M-Instruct and real QM9, by the commands of the README."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import LINEAR_MODULES, MOLECULES
from transformers import AutoTokenizer

from modeling_mora import MoleculeFeatureExtractor, MoraForCausalLM, MoraProcessor
from training.base_model import resolve_base

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base() -> str:
    return resolve_base("smollm2")


def run(*command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_train_load_score_and_ask(base: str, tmp_path: Path):
    """A few steps of the quickstart, scored and asked in fresh processes."""
    model = str(tmp_path / "model")
    recipe = "training/recipes/qm9_quickstart.yaml"
    sizes = ["--train_molecules", "24", "--validation_molecules", "4", "--test_molecules", "6"]
    steps = ["--max_steps", "3", "--per_device_train_batch_size", "4"]
    run("training.finetune", recipe, "--output_dir", model, *sizes, *steps)
    run("eval.benchmark", "--model", model, "--output_dir", str(tmp_path / "scores"))
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert results["rows_scored"] == 6
    assert (tmp_path / "scores" / "parity.png").stat().st_size > 1000
    answer = run("eval.predict", "--model", model, "--property", "gap", "CCO", "InChI=1S/CH4/h1H4")
    assert "CCO" in answer and "InChI=1S/CH4/h1H4" in answer


@torch.no_grad()
def test_batch_of_16_equals_one_by_one(base: str):
    """Law 1 on the real model: float32, relative to logits of about 20, to 1e-5."""
    torch.manual_seed(0)
    model = MoraForCausalLM.from_base(
        base, target_modules=LINEAR_MODULES, layers_to_transform=[27, 28, 29]
    )
    for delta in model.tuner.deltas.values():
        delta.B.normal_(std=0.05)
    processor = MoraProcessor(MoleculeFeatureExtractor(), AutoTokenizer.from_pretrained(base))
    texts = [f"HOMO-LUMO gap of {molecule} in hartree?" for molecule in MOLECULES]
    batch = processor(text=texts, molecules=MOLECULES, return_tensors="pt", padding=True)
    together = model(**batch, logits_to_keep=1).logits[:, 0]
    with model.disable_adapter():
        adapter_off = model(**batch, logits_to_keep=1).logits[:, 0]
    assert (together - adapter_off).abs().amax(dim=1).min() > 0.1
    for row, (text, molecule) in enumerate(zip(texts, MOLECULES, strict=True)):
        single = processor(text=[text], molecules=[molecule], return_tensors="pt")
        alone = model(**single, logits_to_keep=1).logits[0, 0]
        error = (together[row] - alone).abs().max() / alone.abs().max()
        assert error < 1e-5, f"{molecule}: {error}"
