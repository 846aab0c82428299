# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that compares two methods: what it reads, prints and writes."""

import json
import shutil
from pathlib import Path

import pytest
from matplotlib.image import imread
from result_files import write_results

from eval import relative_gain
from eval.gains import find_gains
from eval.result_files import read_runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds of each of two methods, scored on numbers and on molecules."""
    for method, quality in (("mora", 0.8), ("lora", 0.5)):
        for seed in range(2):
            for task in ("property_prediction", "retrosynthesis"):
                write_results(
                    tmp_path / method / f"seed-{seed}" / task, task, n=60, quality=quality,
                    model=f"runs/{method}/seed-{seed}", method=method,
                )  # fmt: skip
    return tmp_path


def test_two_results(folder: Path, capsys: pytest.CaptureFixture[str]):
    ours, theirs = (
        folder / name / "seed-0" / "property_prediction" / "results.json"
        for name in ("mora", "lora")
    )
    assert relative_gain.main([str(ours), str(theirs), "--metric", "mae"]) == 0
    (gain,) = find_gains(read_runs([ours]), read_runs([theirs]))
    printed = capsys.readouterr().out
    assert "ours: MoRA, mora/seed-0\ntheirs: LoRA, lora/seed-0\n" in printed
    for text in (f"{gain.gain:+.1%}", f"{-gain.gain:+.1%}", f"[{gain.low:+.1%}, ", "MAE↓", "1, 1"):
        assert text in printed
    assert f"{gain.read[0]:.1%} of our answers" in " ".join(printed.split())
    assert not list(folder.glob("*.png"))


def test_folders_of_several_seeds(folder: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--ours", str(folder / "mora"), "--theirs", str(folder / "lora")]
    assert relative_gain.main([*flags, "--output_dir", str(folder / "out"), "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert "ours: MoRA, mora/seed-0 and 1 more" in printed and "2, 2" in printed
    written = json.loads((folder / "out" / "relative_gain.json").read_text())
    expected = find_gains(read_runs([folder / "mora"]), read_runs([folder / "lora"]), seed=5)
    assert [gain["task"] for gain in written["gains"]] == ["retrosynthesis", "property_prediction"]
    for found, gain in zip(written["gains"], expected, strict=True):
        for key in ("metric", "n", "gain", "low", "high", "change"):
            assert found[key] == getattr(gain, key)
        assert len(found["ours"]) == len(found["theirs"]) == 2
        assert (found["policy"], found["dataset_sha256"]) == ("strict", "d" * 64)
    assert [side["method"] for side in written["theirs"]] == ["lora"] * 4
    assert written["bootstrap"] == {"resamples": 1000, "level": 0.95, "seed": 5, "paired": True}
    assert written["command"].startswith("python -m eval.relative_gain --ours")
    height, width, _ = imread(folder / "out" / "relative_gain.png").shape
    assert 200 < height < width < 1200


def test_copies_without_answers_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]):
    ours = folder / "mora" / "seed-0" / "retrosynthesis" / "results.json"
    copy = folder / "results" / "lora-seed-0.json"
    copy.parent.mkdir()
    shutil.copy(folder / "lora" / "seed-0" / "retrosynthesis" / "results.json", copy)
    assert relative_gain.main([str(ours), str(copy)]) == 2
    message = capsys.readouterr().err
    assert f"{copy.parent / 'predictions.jsonl'} is missing, which holds the answers" in message
    assert "no copy of its results" in message


def test_results_that_cannot_be_compared(folder: Path, capsys: pytest.CaptureFixture[str]):
    results = [
        str(folder / "mora" / "seed-0" / task) for task in ("retrosynthesis", "property_prediction")
    ]
    assert relative_gain.main(results) == 2
    assert "error: " in (message := capsys.readouterr().err) and "cannot be compared" in message


@pytest.mark.parametrize(
    "arguments",
    [[], ["a"], ["a", "b", "c"], ["a", "b", "--ours", "c"], ["--ours", "a"], ["--theirs", "a"]],
)
def test_both_sides_are_needed(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        relative_gain.main(arguments)
    assert caught.value.code == 2
    assert "give two results, OURS and THEIRS, or --ours and --theirs" in capsys.readouterr().err
