# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a comparison, from results and gains as the commands write them."""

from pathlib import Path

from training.comparison_page import write_page


def result(arm: str, seed: int, value: float | None, **controls: float) -> dict:
    """What eval.benchmark and training.compare write, as far as the page reads it."""
    scores = [
        {
            "task": "property_prediction",
            "source": "qm9",
            "property": "gap",
            "unit": "hartree",
            "n": 400,
            "control": control,
            "metrics": {"mae": {"value": v, "low": v and v / 2, "high": v and 2 * v}},
        }
        for control, v in {None: value, **controls}.items()
    ]
    search = {f"{arm}@learning_rate=0.1": 0.75, f"{arm}@learning_rate=0.2": 0.5}
    comparison = {"tier": "cpu", "hardware": "2 cores", "seed": seed, "search": search}
    return {
        "scores": scores,
        "comparison": comparison | {"steps": 220, "train_runtime_s": 300.0},
        "answer_loss": [],
    }


def loss(
    value: float, control: str | None = None, than: str | None = None, more: float = 0
) -> dict:
    """An entry of what eval.answer_loss writes, as far as the page reads it."""
    interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
    difference = {"value": more, "low": more - 0.01, "high": more + 0.01} if more else None
    asked = {"task": "retrosynthesis", "source": "uspto", "control": control, "than": than}
    return asked | {"loss": interval, "difference": difference}


def gain(value: float | None) -> dict:
    keys = {"task": "property_prediction", "source": "qm9", "property": "gap", "unit": "hartree"}
    ends = {"low": value, "high": value} if value is not None else {"low": None, "high": None}
    return {**keys, "metric": "mae", "n": 400, "gain": value, **ends}


def lines_of(folder: Path, arms: dict, gains: dict) -> list[str]:
    return write_page("gaps", arms, gains, [], folder).read_text().splitlines()


def test_one_seed(tmp_path: Path):
    arms = {
        "mora": [result("mora", 0, 0.012, shuffled_molecule=0.05)],
        "lora": [result("lora", 0, 0.02)],
    }
    lines = lines_of(tmp_path, arms, {"lora": [gain(0.4)]})
    assert "# gaps" in lines and "Tier cpu; 2 cores." in lines
    tried = "learning_rate=0.1: 0.7500<br>**learning_rate=0.2: 0.5000**"
    assert f"| `mora` | {tried} | 0 | 220 | 5.0 |" in lines
    assert "## property prediction, qm9, gap: mae, hartree, 400 rows" in lines
    assert "|  | mae | gain of mora |" in lines
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
    assert any("| 0, 1 | 220 |" in line for line in lines)


def test_each_question_has_its_own_gain(tmp_path: Path):
    arms = {arm: [result(arm, 0, 0.02)] for arm in ("mora", "lora")}
    for results in arms.values():
        results[0]["scores"].append(results[0]["scores"][0] | {"property": "homo"})
    gains = {"lora": [gain(0.1) | {"property": "homo"}, gain(0.4)]}
    lines = lines_of(tmp_path, arms, gains)
    gap, homo = (lines.index(line) for line in lines if line.startswith("## property"))
    ours = [index for index, line in enumerate(lines) if line.startswith("| `lora` | 0.02")]
    assert gap < ours[0] < homo < ours[1]
    assert "+40.0%" in lines[ours[0]] and "+10.0%" in lines[ours[1]]


def test_what_is_missing(tmp_path: Path):
    """A first seed that has failed, a training that was resumed, and a single arm."""
    (only,) = [result("mora", 1, 0.012)]
    only["comparison"] |= {"search": {}, "train_runtime_s": None}
    page = write_page("gaps", {"mora": [only]}, {}, [], tmp_path, ["mora/seed-0"]).read_text()
    assert "**Failed, and missing here**: mora/seed-0." in page
    assert "| `mora` | – | 1 | 220 | – |" in page
    assert "|  | mae |\n| --- | --- |\n| `mora` | 0.012 [0.006, 0.024] |\n" in page
    assert "gain of" not in page and "A positive gain" not in page


def test_losses_of_the_right_answers(tmp_path: Path):
    arms = {arm: [result(arm, seed, 0.02) for seed in range(2)] for arm in ("mora", "lora")}
    losses = []
    for seed, (mora, lora) in enumerate(zip(arms["mora"], arms["lora"], strict=True)):
        mora["answer_loss"] = [loss(0.5 + seed / 10), loss(0.75, "no_string", more=0.25)]
        lora["answer_loss"] = [loss(0.75, than=None), loss(1.5, "shuffled_molecule", more=0.75)]
        losses.append([*mora["answer_loss"], loss(0.75, than="lora", more=0.2 - seed / 10)])
    page = write_page("products", arms, {}, losses, tmp_path).read_text()
    table = page.partition("## retrosynthesis, uspto: loss of the right answers, nats a token\n\n")
    assert table[2].splitlines()[:6] == [
        "|  | loss | more than mora's |",
        "| --- | --- | --- |",
        "| `mora` | 0.5500 [0.5000, 0.6000] |  |",
        "| ↳ no string | 0.7500 [0.7500, 0.7500] | +0.2500 [+0.2500, +0.2500] |",
        "| `lora` | 0.7500 [0.7500, 0.7500] | +0.1500 [+0.1000, +0.2000] |",
        "| ↳ shuffled molecule | 1.5000 [1.5000, 1.5000] |  |",
    ]
    arms = {arm: results[:1] for arm, results in arms.items()}
    page = write_page("products", arms, {}, losses[:1], tmp_path).read_text()
    assert "| `mora` | 0.5000 [0.4000, 0.6000] |  |" in page
    assert "| `lora` | 0.7500 [0.6500, 0.8500] | +0.2000 [+0.1900, +0.2100] |" in page
