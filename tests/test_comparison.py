# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Comparison files: what they mean, and what is refused before anything is trained."""

from pathlib import Path

import pytest
import yaml

from training import argument_checks
from training.comparison import Comparison, check_settings, full_recipe, read_comparison
from training.comparison_run import plan_run, take_folder

SHIPPED = sorted((Path(__file__).parents[1] / "training" / "comparisons").glob("*.yaml"))
CONTENT = {
    "tier": "cpu",
    "seeds": [0, 1],
    "arms": {
        "mora": {"core_dim": 32, "controls": ["shuffled_molecule"]},
        "lora": {"method": "lora", "search": {"learning_rate": [0.001, 0.002]}},
    },
    "benchmark": {"split": "test"},
}


def write(folder: Path, **changes: object) -> Path:
    recipe = folder / "recipe.yaml"
    settings = {"base": "smollm2", "rank": 16, "core_dim": 16, "eval_strategy": "epoch"}
    recipe.write_text(yaml.safe_dump(settings))
    path = folder / "gaps.yaml"
    path.write_text(yaml.safe_dump({"recipe": str(recipe)} | CONTENT | changes))
    return path


def check_all(comparison: Comparison) -> None:
    for variants in comparison.arms.values():
        for variant in variants:
            check_settings(comparison, variant)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_comparisons_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where data and graph encoder are there."""
    info = {"rows": {"train": 1, "validation": 1}, "tasks": {}}
    monkeypatch.setattr(argument_checks, "check_graph_encoder", lambda name: None)
    monkeypatch.setattr(argument_checks, "read_info", lambda path: info)
    monkeypatch.chdir(SHIPPED[0].parents[2])
    comparison = read_comparison(path)
    check_all(comparison)
    assert path.stem.endswith(comparison.tier)
    assert len(comparison.seeds) == (1 if comparison.tier == "cpu" else 3)


def test_arms_and_searches(tmp_path: Path):
    comparison = read_comparison(write(tmp_path))
    assert comparison.name == "gaps"
    assert [variant.name for variant in comparison.arms["lora"]] == [
        "lora@learning_rate=0.001",
        "lora@learning_rate=0.002",
    ]
    (mora,) = comparison.arms["mora"]
    assert mora.controls == ("shuffled_molecule",)
    recipe = full_recipe(comparison, mora, 1, tmp_path / "run")
    assert recipe["core_dim"] == 32 and recipe["rank"] == 16 and recipe["seed"] == 1
    assert "controls" not in recipe


def test_an_arm_or_one_of_its_variants(tmp_path: Path):
    comparison = read_comparison(write(tmp_path))
    assert comparison.variants_of("lora") == comparison.arms["lora"]
    assert comparison.variants_of("lora@learning_rate=0.002") == comparison.arms["lora"][1:]
    with pytest.raises(ValueError, match="lora@learning_rate=0.003: use lora, mora, or a name "):
        comparison.variants_of("lora@learning_rate=0.003")


def test_settings_of_all_arms(tmp_path: Path):
    """They win over the recipe, and what means nothing to an arm's method is set aside."""
    comparison = read_comparison(write(tmp_path, settings={"rank": 4, "core_dim": 8}))
    for arm, core_dim in {"mora": 32, "lora": 8}.items():
        recipe = full_recipe(comparison, comparison.arms[arm][0], 0, tmp_path / "run")
        assert (recipe["rank"], recipe["core_dim"]) == (4, core_dim)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, r"seeds=\[\]"),
        ({"seeds": [1, 1]}, "different"),
        ({"arms": {}}, "arms="),
        ({"arms": {"a/b": {}}}, "becomes a folder"),
        ({"arms": {"mora": {"seed": 3}}}, "each run has its own"),
        ({"arms": {"mora": {"rnak": 3}}}, "rnak"),
        ({"arms": {"lora": {"method": "lora", "core_dim": 8}}}, "core_dim=8 means nothing"),
        ({"arms": {"mora": {"rank": 8, "search": {"rank": [4, 8]}}}}, "set and searched"),
        ({"arms": {"mora": {"search": {"rank": 4}}}}, "KEY:"),
        ({"arms": {"mora": {"eval_strategy": "no"}}}, "mora: eval_strategy=no, but arms are"),
        ({"arms": {"mora": {"search": {"base": ["smollm2", "me/llm"]}}}}, "no value may hold a sl"),
        ({"benchmark": {"splt": "test"}}, "splt"),
        ({"teir": "gpu"}, "teir"),
        ({"settings": {"seed": 1}}, "each run's own"),
        ({"settings": {"rnak": 1}}, "rnak"),
        ({"settings": {"learning_rate": 0}}, "learning_rate=0"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check_all(read_comparison(write(tmp_path, **changes)))


def test_a_folder_with_other_settings_is_refused(tmp_path: Path):
    comparison = read_comparison(write(tmp_path))
    (mora,) = comparison.arms["mora"]
    take_folder(plan_run(comparison, mora, 0, tmp_path / "runs"))
    take_folder(plan_run(comparison, mora, 0, tmp_path / "runs"))
    changed = read_comparison(write(tmp_path, arms={"mora": {"core_dim": 64}}))
    with pytest.raises(ValueError, match="core_dim=32, now it is 64"):
        take_folder(plan_run(changed, changed.arms["mora"][0], 0, tmp_path / "runs"))
