# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The page on all comparisons: what it takes from their results, and that ours is up to date."""

import json
from pathlib import Path

import pytest

from eval.plots import forest
from eval.plots.forest import Interval
from training import overview
from training.comparison_page import write_page

RESULTS = Path(__file__).parents[1] / "eval" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/report"))
ASKED = {"task": "property_prediction", "source": "qm9", "unit": "hartree"}


def write_arm(
    folder: Path, arm: str, method: str, steps: int, maes: dict, seed: int = 0, **recipe: object
) -> None:
    scores = [
        ASKED
        | {"property": name, "control": control, "n": 400, "metrics": {"mae": {"value": value}}}
        for (name, control), value in maes.items()
    ]
    about = {"name": folder.name, "tier": "cpu", "hardware": "abacus", "seed": seed, "steps": steps}
    content = {"method": method, "scores": scores, "comparison": about | {"recipe": recipe}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{arm}-seed-{seed}.json").write_text(json.dumps(content))


def write_gains(
    folder: Path, ours: str, runs: dict[str, str], gains: dict, losses: list[dict]
) -> None:
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
    content = {"ours": ours, "runs": {arm: [f"{name}-seed-0"] for arm, name in runs.items()}}
    content |= {"gains": found, "losses": of_seeds}
    path.write_text(json.dumps(content))


LORA, EQUAL_STEPS, EQUAL_TIME = overview.RIVALS
BOTH = {("homo", None): 0.01, (None, None): 0.02}
GAINS = {
    "lora": {"homo": 0.3, None: 0.4},
    "lora_big": {"homo": 0.35, None: 0.2},
    "lora_as_mora_core_128": {"homo": -0.2, None: -0.2},
    "prefix": {"homo": 0.1, None: 0.15},
    "prefix_short": {"homo": 0.5, None: 2.5},
    "prefix_long": {"homo": -0.1, None: -0.1},
    "mora_dense": {"homo": 0.01, None: 0.01},
}
LEADS = {"lora": 0.03, "lora_big": 0.05, "prefix": 0.06, "prefix_short": 0.08, "prefix_long": -0.01}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two properties; two LoRAs, graph prefixes with as many steps, with fewer and with more."""
    folder = tmp_path / "qm9"
    write_arm(folder, "mora@rank=8", "mora", 20, BOTH | {(None, "shuffled_molecule"): 0.05})
    write_arm(folder, "mora@rank=4", "mora", 11, {key: 9.0 for key in BOTH})  # left over
    write_arm(folder, "lora@rank=8", "lora", 20, BOTH)
    size = {"lora_match": "parameters"}
    write_arm(folder, "lora_big", "lora", 20, BOTH, **size)
    write_arm(folder, "lora_as_mora_core_128", "lora", 20, BOTH, **size, core_dim=128)
    for arm, steps in (("prefix", 20), ("prefix_short", 11), ("prefix_long", 40)):
        write_arm(folder, arm, "graph_prefix", steps, BOTH)
    write_arm(folder, "mora_dense", "mora", 20, BOTH)
    runs = {"mora": "mora@rank=8", "lora": "lora@rank=8"}
    runs |= {arm: arm for arm in GAINS if arm not in runs}
    write_gains(folder, "mora", runs, GAINS, [LEADS | {None: 0.0}])
    return tmp_path


def change(results: Path, **parts: object) -> None:
    """Other parts of the file of gains."""
    path = results / "qm9" / "report" / overview.GAINS
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def read(results: Path) -> dict:
    return json.loads((results / "qm9" / "report" / overview.GAINS).read_text())


def test_the_better_lora_and_each_graph_prefix(results: Path):
    homo, both = overview.read_questions(results)
    first = [{rival: found[0].value for rival, found in one.gains.items()} for one in (homo, both)]
    assert first == [
        {LORA: 0.3, EQUAL_STEPS: 0.1, EQUAL_TIME: 0.5},
        {LORA: 0.2, EQUAL_STEPS: 0.15, EQUAL_TIME: 2.5},
    ]
    leads = {rival: found[0].value for rival, found in both.leads.items()}
    assert leads == {LORA: 0.03, EQUAL_STEPS: 0.06, EQUAL_TIME: 0.08}
    lora = both.leads[LORA][0]
    assert (lora.low, lora.high) == pytest.approx((0.02, 0.04))
    assert not any(homo.leads.values())  # the loss is that of both properties
    assert dict(both.values) == {None: "0.0200", "shuffled_molecule": "0.0500", "no_string": "–"}


def test_the_rivals_of_a_larger_core(results: Path):
    """LoRA of its rank and of its size, not that of the size of MoRA with the usual core."""
    write_arm(results / "qm9", "mora@rank=8", "mora", 20, BOTH, core_dim=128)
    homo, _ = overview.read_questions(results)
    assert [one.value for one in homo.gains[LORA]] == [-0.2, 0.3]


def test_page_and_picture(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    drawn = []
    monkeypatch.setattr(overview, "save_forest", lambda *parts: drawn.extend(parts))
    assert overview.main(["--results_dir", str(results)]) == 0
    assert "README.md" in capsys.readouterr().out
    page = (results / "README.md").read_text()
    line = next(line for line in page.splitlines() if "400 | MAE↓, hartree | 0.0200" in line)
    assert "| +20.0% [+10.0%, +30.0%] | +15.0% [+5.0%, +25.0%] | +250.0% [" in line
    assert line.endswith("| cpu: abacus; seed 0 |")
    assert "(qm9/README.md) | +0.0300 [+0.0200, +0.0400] | +0.0600 [" in page
    lines, rivals, (gains, leads), path = drawn
    assert lines[1] == "Property prediction, qm9, all\nqm9, n = 400" and rivals == overview.RIVALS
    assert [point[LORA].value for point in gains.points] == [0.3, 0.2]
    assert gains.percent and "gain" in gains.label
    assert [list(point) for point in leads.points] == [[], list(rivals)]
    assert leads.points[1][EQUAL_TIME].value == 0.08 and "loss" in leads.label
    assert path == results / overview.PICTURE


def test_points_beyond_the_edge_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    figures = []
    monkeypatch.setattr(forest, "save", lambda figure, path: figures.append(figure))
    points = [{"a": Interval(2.5, 2.0, 3.0)}, {"a": Interval(0.2, 0.1, 0.4)}]
    points += [{"a": Interval(-0.8, None, None)}, {"a": Interval(0.3, None, None)}, {}]
    panel = forest.Panel("gain", points, (-0.5, 1.5), percent=True)
    forest.save_forest(list("pqrst"), ["a"], [panel], tmp_path / "forest.png")
    (axes,) = figures[0].axes
    assert {text.get_text() for text in axes.texts} == {"250% →", "← -80%"}
    drawn = [container.lines[0].get_xdata()[0] for container in axes.containers]
    assert drawn == [0.2, 0.3]
    assert [len(container.lines[2]) for container in axes.containers] == [1, 0]  # bars
    assert [label.get_text() for label in axes.get_yticklabels()] == list("pqrst")


def test_one_lora_alone_is_marked(results: Path):
    gains = GAINS | {"lora_big": {}}
    (results / "qm9" / "report" / overview.GAINS).unlink()
    (results / "qm9" / "report").rmdir()
    runs = {"mora": "mora@rank=8"} | {arm: arm for arm in ("lora_big", "prefix")}
    write_gains(results / "qm9", "mora", runs | {"lora": "lora@rank=8"}, gains, [LEADS])
    page = overview.write_page(overview.read_questions(results))
    assert "| +40.0% [+30.0%, +50.0%]¹ | +15.0% [" in page
    assert "| +0.0300 [+0.0200, +0.0400] | +0.0600 [" in page  # of the losses there are two
    change(results, gains=read(results)["gains"] | {"lora": []})
    page = overview.write_page(overview.read_questions(results))
    assert "| – | +15.0% [" in page


def test_seeds_are_averaged(results: Path):
    second = {("homo", None): 0.01, (None, None): 0.04}
    write_arm(results / "qm9", "mora@rank=8", "mora", 20, second, 1)
    content = read(results)
    more = json.loads(json.dumps(content["losses"][0]))
    for one in more:
        one["difference"]["value"] += 0.02
    runs = content["runs"] | {"mora": ["mora@rank=8-seed-0", "mora@rank=8-seed-1"]}
    change(results, runs=runs, losses=[*content["losses"], more])
    _, both = overview.read_questions(results)
    lead = both.leads[LORA][0]
    assert (lead.value, lead.low, lead.high) == pytest.approx((0.04, 0.03, 0.05))
    assert both.values[None] == "0.0300" and both.trained == "cpu: abacus; seed 0, 1"


@pytest.mark.parametrize("ours", ["lora", "gone"])
def test_only_what_mora_is_compared_with(results: Path, capsys, ours: str):
    """Not where another arm is the first one, or MoRA has failed."""
    change(results, ours=ours)
    assert overview.main(["--results_dir", str(results)]) == 2
    assert "compares MoRA with nothing" in capsys.readouterr().err


def test_a_comparison_of_settings_has_no_rival(results: Path, capsys):
    content = read(results)
    arms = ("mora", "mora_dense")
    change(results, runs={arm: content["runs"][arm] for arm in arms})
    assert overview.main(["--results_dir", str(results)]) == 2
    assert "compares MoRA with nothing" in capsys.readouterr().err


def test_results_without_gains(results: Path, capsys):
    (results / "qm9" / "report" / overview.GAINS).unlink()
    assert overview.main(["--results_dir", str(results)]) == 2
    assert f"{overview.GAINS} is missing" in capsys.readouterr().err


def test_the_page_is_that_of_the_results():
    """It was written anew after the last comparison."""
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert overview.write_page(overview.read_questions(RESULTS)) == page


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_pages_of_comparisons_are_those_of_their_files(folder: Path, tmp_path: Path):
    content = json.loads((folder / "report" / overview.GAINS).read_text(encoding="utf-8"))
    arms = {
        arm: [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names]
        for arm, names in content["runs"].items()
    }
    # The losses of the first comparisons were not found.
    arms = {arm: [{"answer_loss": []} | one for one in found] for arm, found in arms.items()}
    page = write_page(folder.name, arms, content["gains"], content["losses"], tmp_path)
    assert page.read_text(encoding="utf-8") == (folder / "README.md").read_text(encoding="utf-8")
