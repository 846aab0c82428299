# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The page on all comparisons: what it takes from their results, and that ours is up to date."""

import json
from pathlib import Path

import pytest

from training import overview

RESULTS = Path(__file__).parents[1] / "eval" / "results"
ASKED = {"task": "property_prediction", "source": "qm9", "unit": "hartree"}


def write_arm(folder: Path, arm: str, method: str, steps: int, maes: dict, seed: int = 0) -> None:
    scores = [
        ASKED
        | {"property": name, "control": control, "n": 400, "metrics": {"mae": {"value": value}}}
        for (name, control), value in maes.items()
    ]
    about = {"name": folder.name, "tier": "cpu", "hardware": "abacus", "seed": seed, "steps": steps}
    content = {"method": method, "scores": scores, "comparison": about}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{arm}-seed-{seed}.json").write_text(json.dumps(content))


def write_gains(folder: Path, ours: str, gains: dict, losses: list[dict]) -> None:
    found = {
        arm: [
            ASKED | {"property": name, "gain": gain, "low": gain - 0.1, "high": gain + 0.1}
            for name, gain in of_arm.items()
        ]
        for arm, of_arm in gains.items()
    }
    of_seeds = [
        [
            ASKED
            | {"than": arm, "difference": {"value": lead, "low": lead - 0.01, "high": lead + 0.01}}
            for arm, lead in of_seed.items()
        ]
        for of_seed in losses
    ]
    path = folder / "report" / overview.GAINS
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"ours": ours, "gains": found, "losses": of_seeds}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two properties; two LoRAs, a graph prefix with as many steps and one with fewer."""
    folder = tmp_path / "qm9"
    both = {("homo", None): 0.01, (None, None): 0.02}
    write_arm(folder, "mora@rank=8", "mora", 20, both | {(None, "shuffled_molecule"): 0.05})
    for arm, method, steps in (
        ("lora@rank=8", "lora", 20),
        ("lora_big", "lora", 20),
        ("prefix", "graph_prefix", 20),
        ("prefix_short", "graph_prefix", 11),
        ("mora_dense", "mora", 20),
    ):
        write_arm(folder, arm, method, steps, both)
    gains = {
        "lora": {"homo": 0.3, None: 0.4},
        "lora_big": {"homo": 0.35, None: 0.2},
        "prefix": {"homo": 0.1, None: 0.15},
        "prefix_short": {"homo": 0.5, None: 0.6},
        "mora_dense": {"homo": 0.01, None: 0.01},
    }
    losses = {"lora": 0.03, "lora_big": 0.05, "prefix": 0.06, "prefix_short": 0.08}
    write_gains(folder, "mora", gains, [losses | {None: 0.0}])
    return tmp_path


def test_the_better_lora_and_each_graph_prefix(results: Path):
    homo, both = overview.read_questions(results)
    lora, steps, time = overview.RIVALS
    assert [homo.gains[rival].value for rival in (lora, steps, time)] == [0.3, 0.1, 0.5]
    assert [both.gains[rival].value for rival in (lora, steps, time)] == [0.2, 0.15, 0.6]
    assert [both.leads[rival].value for rival in (lora, steps, time)] == [0.03, 0.06, 0.08]
    assert (both.leads[lora].low, both.leads[lora].high) == pytest.approx((0.02, 0.04))
    assert not homo.leads  # the loss is that of both properties
    assert dict(both.values) == {None: "0.0200", "shuffled_molecule": "0.0500", "no_string": "–"}


def test_page_and_picture(results: Path, capsys: pytest.CaptureFixture[str]):
    assert overview.main(["--results_dir", str(results)]) == 0
    assert "README.md" in capsys.readouterr().out
    page = (results / "README.md").read_text()
    line = next(line for line in page.splitlines() if "400 | MAE↓, hartree | 0.0200" in line)
    assert "| +20.0% [+10.0%, +30.0%] | +15.0% [+5.0%, +25.0%] | +60.0% [" in line
    assert line.endswith("| cpu: abacus; seed 0 |")
    assert "(qm9/README.md) | +0.0300 [+0.0200, +0.0400] | +0.0600 [" in page
    assert (results / overview.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_one_lora_alone_is_marked(results: Path):
    folder = results / "qm9"
    (folder / "lora_big-seed-0.json").unlink()
    path = folder / "report" / overview.GAINS
    content = json.loads(path.read_text())
    del content["gains"]["lora_big"]
    path.write_text(json.dumps(content))
    page = overview.write_page(overview.read_questions(results))
    assert "| +40.0% [+30.0%, +50.0%]¹ | +15.0% [" in page


def test_seeds_are_averaged(results: Path):
    folder = results / "qm9"
    write_arm(folder, "mora@rank=8", "mora", 20, {("homo", None): 0.01, (None, None): 0.04}, 1)
    path = folder / "report" / overview.GAINS
    content = json.loads(path.read_text())
    second = json.loads(json.dumps(content["losses"][0]))
    for one in second:
        one["difference"]["value"] += 0.02
    path.write_text(json.dumps(content | {"losses": [content["losses"][0], second]}))
    _, both = overview.read_questions(results)
    lora = overview.LORA
    assert both.leads[lora].value == pytest.approx(0.04)
    assert (both.leads[lora].low, both.leads[lora].high) == pytest.approx((0.03, 0.05))
    assert both.values[None] == "0.0300" and both.trained == "cpu: abacus; seed 0, 1"


def test_a_comparison_of_settings_has_no_rival(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "settings"
    for arm in ("recipe", "dense"):
        write_arm(folder, arm, "mora", 20, {(None, None): 0.02})
    write_gains(folder, "recipe", {"dense": {None: 0.1}}, [{"dense": 0.01}])
    assert overview.main(["--results_dir", str(tmp_path)]) == 2
    assert "no comparison of MoRA with a rival" in capsys.readouterr().err


def test_the_page_is_that_of_the_results():
    """It was written anew after the last comparison, and all comparisons with rivals are on it."""
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert overview.write_page(overview.read_questions(RESULTS)) == page
    names = {path.parent.name for path in RESULTS.glob("*/report")} - {"mora_settings_cpu"}
    assert names and all(f"({name}/README.md)" in page for name in names)


def test_gains_are_those_of_the_pages():
    """Each gain stands on the page of its comparison too."""
    for path in RESULTS.glob(f"*/report/{overview.GAINS}"):
        page = (path.parents[1] / "README.md").read_text(encoding="utf-8")
        for gains in json.loads(path.read_text(encoding="utf-8"))["gains"].values():
            for gain in gains:
                assert gain["gain"] is None or f"| {gain['gain']:+.1%}" in page, path
