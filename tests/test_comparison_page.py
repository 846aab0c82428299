# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a comparison, from results and gains as the commands write them."""

from pathlib import Path

import pytest

from training.comparison_page import write_page


def result(arm: str, seed: int, value: float | None, **controls: float) -> dict:
    """What eval.benchmark and training.compare write, as far as the page reads it."""
    scores = [
        {
            "task": "property_prediction",
            "source": "qm9",
            "property": "gap",
            "control": control,
            "metrics": {"mae": {"value": v, "low": v and v / 2, "high": v and 2 * v}},
        }
        for control, v in {None: value, **controls}.items()
    ]
    search = {f"{arm}@learning_rate=0.1": 0.75, f"{arm}@learning_rate=0.2": 0.5}
    comparison = {"tier": "cpu", "hardware": "2 cores", "seed": seed, "search": search}
    return {"scores": scores, "comparison": comparison | {"steps": 220, "train_runtime_s": 300.0}}


def gain(value: float | None) -> dict:
    keys = {"task": "property_prediction", "source": "qm9", "property": "gap", "unit": "hartree"}
    ends = {"low": value, "high": value} if value is not None else {"low": None, "high": None}
    return {**keys, "metric": "mae", "n": 400, "gain": value, **ends}


def lines_of(folder: Path, arms: dict, gains: dict) -> list[str]:
    return write_page("gaps", arms, gains, folder).read_text().splitlines()


def test_one_seed(tmp_path: Path):
    arms = {
        "mora": [result("mora", 0, 0.012, shuffled_molecule=0.05)],
        "lora": [result("lora", 0, 0.02)],
    }
    lines = lines_of(tmp_path, arms, {"lora": [gain(0.4)]})
    assert "# gaps" in lines and "Tier cpu; 2 cores; seeds 0." in "\n".join(lines)
    tried = "learning_rate=0.1: 0.7500<br>**learning_rate=0.2: 0.5000**"
    assert f"| `mora` | {tried} | 220 | 5.0 |" in lines
    assert "## property prediction, qm9, gap: mae, hartree, 400 rows" in lines
    assert "| `mora` | 0.012 [0.006, 0.024] |  |" in lines
    assert "| ↳ shuffled molecule | 0.05 [0.025, 0.1] |  |" in lines
    assert "| `lora` | 0.02 [0.01, 0.04] | +40.0% [+40.0%, +40.0%] |" in lines


def test_several_seeds_and_what_has_no_score(tmp_path: Path):
    arms = {
        "mora": [result("mora", seed, value) for seed, value in enumerate([0.01, 0.03])],
        "base": [result("base", 0, None)],
    }
    lines = lines_of(tmp_path, arms, {"base": [gain(None)]})
    assert "| `mora` | 0.02 [0.01, 0.03] |  |" in lines
    assert "| `base` | – | – |" in lines
    assert "seeds 0, 1." in "\n".join(lines)


@pytest.mark.parametrize("arm", ["mora", "lora"])
def test_a_single_arm_has_no_gain(arm: str, tmp_path: Path):
    lines = lines_of(tmp_path, {arm: [result(arm, 0, 0.012)]}, {})
    assert not any("gain" in line for line in lines)
    assert any("report/report.md" in line for line in lines)
