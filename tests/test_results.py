# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The results that come with the project: whole, of this layout, and without traces."""

import json
import tarfile
from pathlib import Path

import pytest

from training.compare import GAINS
from training.comparison import full_recipe, read_comparison
from training.comparison_run import differing_keys
from training.published_runs import KEPT

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "eval" / "results"
FILES = sorted(RESULTS.glob("*/*.json"))
ANSWERS = sorted(RESULTS.glob("*/*.tar.xz"))
TRACES = ("/root", "/home", "/tmp", "/work")
# Trained in two starts, so that nobody knows how long it took.
GONE_ON = {"retrosynthesis_cpu/graph_prefix_equal_time-seed-0"}


def test_each_comparison_has_a_report():
    assert FILES and ANSWERS
    for folder in {path.parent for path in FILES}:
        gains = (folder / "report" / GAINS).read_text(encoding="utf-8")
        assert not any(trace in gains for trace in TRACES)
        for page in (folder / "README.md", folder / "report" / "report.md"):
            text = page.read_text(encoding="utf-8")
            assert not any(trace in text for trace in TRACES)
            for line in text.splitlines():
                if line.startswith("!["):
                    assert (page.parent / line.split("](")[1].split(")")[0]).exists(), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_result_says_how_it_came_about(path: Path):
    text = path.read_text(encoding="utf-8")
    for trace in TRACES:
        assert trace not in text
    results = json.loads(text)
    comparison = results["comparison"]
    assert comparison["name"] == path.parent.name
    assert comparison["tier"] in ("cpu", "gpu") and comparison["hardware"]
    assert comparison["arm"] == path.name.split("@")[0].split("-seed-")[0]
    assert comparison["steps"] > 0
    seconds = comparison["train_runtime_s"]
    assert seconds is None if f"{path.parent.name}/{path.stem}" in GONE_ON else seconds > 0
    assert comparison["recipe"]["seed"] == comparison["seed"]
    entries = [entry for entry in results["scores"] if entry["control"] is None]
    # A description takes as long to write as some twenty numbers.
    enough = 200 if entries[0]["task"] == "molecule_captioning" else 400
    assert sum(entry["n"] for entry in entries) >= enough
    for entry in entries:
        intervals = [m for m in entry["metrics"].values() if m.get("low") is not None]
        assert intervals and all(m["low"] <= m["value"] <= m["high"] for m in intervals)


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_published_answers_are_those_of_the_results(path: Path):
    with tarfile.open(path) as archive:
        kept = {name: archive.extractfile(name).read().decode() for name in archive.getnames()}
    assert tuple(kept) == KEPT
    for text in kept.values():
        for trace in TRACES:
            assert trace not in text
    state, results, predictions, _, losses = kept.values()
    published = json.loads(path.with_name(path.name.replace(".tar.xz", ".json")).read_text())
    mine = json.loads(results)
    assert {key: published[key] for key in mine} == mine
    assert json.loads(state)["global_step"] == published["comparison"]["steps"]
    rows = [
        {(line["control"], line["row"]) for line in map(json.loads, text.splitlines())}
        for text in (predictions, losses)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_published_answers_are_of_arms_as_they_are_now(path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that `--published` takes them, also after a default has changed."""
    monkeypatch.chdir(ROOT)  # comparisons name their recipes from here
    comparison = read_comparison(Path("training/comparisons", f"{path.parent.name}.yaml"))
    name, _, seed = path.name.removesuffix(".tar.xz").rpartition("-seed-")
    (variant,) = [v for arm in comparison.arms.values() for v in arm if v.name == name]
    results = json.loads((path.parent / f"{name}-seed-{seed}.json").read_text())
    recipe = results["comparison"]["recipe"]
    now = full_recipe(comparison, variant, int(seed), Path(recipe["output_dir"]))
    assert differing_keys(recipe, now) == []
