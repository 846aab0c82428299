# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""End to end on the real SmolLM2-135M-Instruct and real QM9, by the commands of the README."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_mora.base_models_mora import resolve_base

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
    assert results["data"]["rows_scored"] == 6
    run("eval.report", str(tmp_path / "scores"), "--output_dir", str(tmp_path / "report"))
    assert "property_prediction_parity" in (tmp_path / "report" / "report.md").read_text()
    answer = run("eval.predict", "--model", model, "--property", "gap", "CCO", "InChI=1S/CH4/h1H4")
    assert "CCO" in answer and "InChI=1S/CH4/h1H4" in answer
