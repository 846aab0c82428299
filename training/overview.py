# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""One page on all comparisons: is an adapter for each molecule better than one for all?

    python -m training.overview                     # of eval/results

Reads what training.compare has written there, and adds `README.md` and `overview.png`.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from eval.metric_names import TASKS, heading, write_value
from eval.plots.forest import Interval, Panel, save_forest
from eval.predictions import replace_file
from training.compare import GAINS
from training.comparison_page import PAGE, QUESTION, as_table

PICTURE = "overview.png"
RIVALS = ("the better LoRA", "graph prefix, equal steps", "graph prefix, equal time")
LORA, EQUAL_STEPS, EQUAL_TIME = RIVALS
# Controls of MoRA, and their columns.
CONTROLS = {"shuffled_molecule": "another graph", "no_string": "no string"}
ONE_LORA = "¹"

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """What came out on one question of one comparison.

    Attributes:
        comparison: its name.
        task: key of `TASKS`.
        title: task, source and property.
        score: name of the score, and its unit.
        n: number of rows.
        trained: tier, hardware and seeds.
        values: MoRA's score, and by control what it is then, as text.
        gains: by rival, how much better MoRA's score is, relative to the rival's.
        leads: by rival, by how much its loss of the right answers is higher, in nats a token;
            empty for one of several properties, which were not told apart.
        loras: how many LoRAs the better one is the better of.
    """

    comparison: str
    task: str
    title: str
    score: str
    n: int
    trained: str
    values: Mapping[str | None, str]
    gains: Mapping[str, Interval]
    leads: Mapping[str, Interval]
    loras: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Write page and picture; returns the exit code, 2 when there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m training.overview")
    parser.add_argument("--results_dir", type=Path, default=Path("eval/results"))
    folder = parser.parse_args(arguments).results_dir
    questions = read_questions(folder)
    if not questions:
        print(f"error: {folder} holds no comparison of MoRA with a rival", file=sys.stderr)
        return 2
    panels = [
        Panel("MoRA's gain in the score", [one.gains for one in questions], (-0.5, 1.5), True),
        Panel("MoRA's lead in loss, nats a token", [one.leads for one in questions], (-0.1, 0.2)),
    ]
    names = [f"{one.title}\n{one.comparison}, n = {one.n:,}" for one in questions]
    save_forest(names, RIVALS, panels, folder / PICTURE)
    replace_file(folder / PAGE, write_page(questions))
    print(f"Wrote {folder / PAGE} and {folder / PICTURE}")
    return 0


def read_questions(folder: Path) -> list[Question]:
    """What came out of all comparisons of MoRA with LoRA or a graph prefix, by task.

    Args:
        folder: holds a folder for each comparison, as training.compare writes them.
    """
    found = [one for path in sorted(folder.glob(f"*/report/{GAINS}")) for one in _read(path)]
    return sorted(found, key=lambda one: list(TASKS).index(one.task))


def _read(path: Path) -> list[Question]:
    """The questions of one comparison; none where all arms are MoRA's."""
    content = json.loads(path.read_text(encoding="utf-8"))
    folder = path.parents[1]
    ours = _results(folder, content["ours"])
    steps = ours[0]["comparison"]["steps"]
    rivals: dict[str, list[str]] = {rival: [] for rival in RIVALS}
    for arm in content["gains"]:
        result = _results(folder, arm)[0]
        if result["method"] == "lora":
            rivals[LORA].append(arm)
        elif result["method"] == "graph_prefix":
            equal = result["comparison"]["steps"] == steps
            rivals[EQUAL_STEPS if equal else EQUAL_TIME].append(arm)
    asked = [score for score in ours[0]["scores"] if score["control"] is None]
    # All properties of a source together come last, and the loss is theirs.
    last = {_source(score): score for score in asked}
    return [
        _question(score, score is last[_source(score)], ours, rivals, content)
        for score in asked
        if any(rivals.values())
    ]


def _results(folder: Path, arm: str) -> list[Result]:
    """The results of an arm or of one of its variants, by seed."""
    found = []
    for path in sorted(folder.glob("*-seed-*.json")):
        name = path.stem.rpartition("-seed-")[0]
        if arm in (name, name.partition("@")[0]):
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def _question(
    asked: Result,
    with_loss: bool,
    ours: Sequence[Result],
    rivals: Mapping[str, Sequence[str]],
    content: Result,
) -> Question:
    metric = TASKS[asked["task"]][1][0]
    gains, leads = {}, {}
    for rival, arms in rivals.items():
        won = [
            Interval(gain["gain"], gain["low"], gain["high"])
            for arm in arms
            for gain in content["gains"][arm]
            if _name(gain) == _name(asked) and gain["gain"] is not None
        ]
        ahead = [_lead(asked, arm, content["losses"]) for arm in arms if with_loss]
        for found, intervals in ((gains, won), (leads, list(filter(None, ahead)))):
            if intervals:
                found[rival] = min(intervals, key=lambda one: one.value)
    values = {
        control: write_value(metric, _mean_score(asked, control, ours, metric))
        for control in (None, *CONTROLS)
    }
    about = ours[0]["comparison"]
    hardware = dict.fromkeys(one["comparison"]["hardware"] for one in ours)
    seeds = [str(one["comparison"]["seed"]) for one in ours]
    unit = f", {asked['unit']}" if asked["unit"] else ""
    # None: of all properties together.
    property = asked["property"] or ("all" if asked["task"] == "property_prediction" else None)
    words = TASKS[asked["task"]][0], asked["source"], property
    return Question(
        comparison=about["name"],
        task=asked["task"],
        title=", ".join(filter(None, words)),
        score=heading(metric) + unit,
        n=asked["n"],
        trained=f"{about['tier']}: {', '.join(hardware)}; seed {', '.join(seeds)}",
        values=values,
        gains=gains,
        leads=leads,
        loras=len(rivals[LORA]),
    )


def _name(score: Result) -> tuple:
    return tuple(score[key] for key in QUESTION)


def _source(score: Result) -> tuple:
    return score["task"], score["source"]


def _lead(asked: Result, arm: str, losses: Iterable[Sequence[Result]]) -> Interval | None:
    """By how much an arm's loss is higher; over several seeds the mean, lowest and highest."""
    more = [
        one["difference"]
        for of_seed in losses
        for one in of_seed
        if one["than"] == arm and _source(one) == _source(asked)
    ]
    if not more:
        return None
    values = [one["value"] for one in more]
    ends = (min(values), max(values)) if len(more) > 1 else (more[0]["low"], more[0]["high"])
    return Interval(mean(values), *ends)


def _mean_score(
    asked: Result, control: str | None, results: Sequence[Result], metric: str
) -> float | None:
    """Over seeds; None where the control was not asked or has no score."""
    values = [
        score["metrics"][metric]["value"]
        for result in results
        for score in result["scores"]
        if _name(score) == _name(asked) and score["control"] == control
    ]
    return mean(values) if values and None not in values else None


def write_page(questions: Sequence[Question]) -> str:
    """The page: the picture, and a table of scores and one of losses."""
    columns = ["question", "n", "score", "MoRA", *CONTROLS.values()]
    scores = [[*columns, *(f"gain over {rival}" for rival in RIVALS), "trained"]]
    losses = [["question", *(f"more than MoRA's: {rival}" for rival in RIVALS)]]
    for one in questions:
        link = f"[{one.title}]({one.comparison}/{PAGE})"
        mark = ONE_LORA if one.loras == 1 else ""
        gains = [_write(one.gains.get(rival), "{:+.1%}") for rival in RIVALS]
        gains[0] += mark
        scores.append([link, f"{one.n:,}", one.score, *one.values.values(), *gains, one.trained])
        if one.leads:
            leads = [_write(one.leads.get(rival), "{:+.4f}") for rival in RIVALS]
            leads[0] += mark
            losses.append([link, *leads])
    return "\n\n".join(
        [
            "# Is an adapter for each molecule better than one for all?",
            f"![MoRA's gains and its leads in loss, by question and rival]({PICTURE})",
            "Right of zero MoRA is better. A gain is relative to the rival's score; the paper has "
            "22% against static adapters on QM9 and 14.1% on products of reactions. The graph "
            "prefix sees the graph too, and takes longer for a step: at equal time it has fewer "
            "steps. Brackets are 95% intervals by paired bootstrap over rows, and know nothing of "
            "other trainings. A dash: not run, or not defined. How each was trained, and what the "
            "numbers do not say: [training/comparisons](../../training/comparisons/README.md).",
            "## Scores",
            as_table(scores),
            f"{ONE_LORA} Only the LoRA of MoRA's rank was trained, none of as many parameters.",
            "## Loss of the right answers",
            "In nats a token; it tells methods apart where few answers are exact.",
            as_table(losses),
            "This page is written by `python -m training.overview`.\n",
        ]
    )


def _write(one: Interval | None, form: str) -> str:
    if one is None:
        return "–"
    ends = "" if one.low is None else f" [{form.format(one.low)}, {form.format(one.high)}]"
    return form.format(one.value) + ends


if __name__ == "__main__":
    sys.exit(main())
