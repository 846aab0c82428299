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
        gains: by kind of rival, how much better MoRA's score is, relative to the rival's; the
            least first, which is that over the best.
        leads: the same, by how much the rival's loss of the right answers is higher, in nats a
            token; none for one of several properties, as losses are by source.
    """

    comparison: str
    task: str
    title: str
    score: str
    n: int
    trained: str
    values: Mapping[str | None, str]
    gains: Mapping[str, Sequence[Interval]]
    leads: Mapping[str, Sequence[Interval]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write page and picture; returns the exit code, 2 when there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m training.overview")
    parser.add_argument("--results_dir", type=Path, default=Path("eval/results"))
    folder = parser.parse_args(arguments).results_dir
    try:
        questions = read_questions(folder)
    except OSError as error:
        print(f"training.overview: error: {error}", file=sys.stderr)
        return 2
    if not questions:
        print(f"training.overview: error: {folder} compares MoRA with nothing", file=sys.stderr)
        return 2
    gains = [_best(one.gains) for one in questions]
    leads = [_best(one.leads) for one in questions]
    panels = [
        Panel("MoRA's gain in the score", gains, (-0.5, 1.5), percent=True),
        Panel("MoRA's lead in loss, nats a token", leads, (-0.1, 0.2)),
    ]
    lines = [f"{one.title}\n{one.comparison}, n = {one.n:,}" for one in questions]
    save_forest(lines, RIVALS, panels, folder / PICTURE)
    replace_file(folder / PAGE, write_page(questions))
    print(f"Wrote {folder / PAGE} and {folder / PICTURE}")
    return 0


def read_questions(folder: Path) -> list[Question]:
    """What came out of all comparisons of MoRA with LoRA or a graph prefix, by task.

    Args:
        folder: holds a folder for each comparison, as training.compare writes them.

    Raises:
        OSError: a comparison has results and no file of gains.
    """
    folders = sorted({path.parent for path in folder.glob("*/*-seed-*.json")})
    found = [question for one in folders for question in _read(one)]
    return sorted(found, key=lambda one: list(TASKS).index(one.task))


def _read(folder: Path) -> list[Question]:
    """The questions of one comparison; none unless MoRA is compared with a rival."""
    path = folder / "report" / GAINS
    if not path.exists():
        raise OSError(f"{path} is missing: training.compare writes it, from published answers too")
    content = json.loads(path.read_text(encoding="utf-8"))
    results = {
        arm: [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names]
        for arm, names in content["runs"].items()
    }
    ours = results.pop(content["ours"], None)
    if ours is None or ours[0]["method"] != "mora":
        return []
    arms: dict[str, list[str]] = {rival: [] for rival in RIVALS}
    for arm, (result, *_) in results.items():
        steps = [one["comparison"]["steps"] for one in (result, ours[0])]
        recipe, our_recipe = (one["comparison"]["recipe"] for one in (result, ours[0]))
        of_our_size = recipe.get("core_dim") == our_recipe.get("core_dim")
        matched = recipe.get("lora_match") == "parameters"
        # A LoRA that is as large as a MoRA with another core is that one's rival.
        if result["method"] == "lora" and (of_our_size or not matched):
            arms[LORA].append(arm)
        elif result["method"] == "graph_prefix" and steps[0] <= steps[1]:
            arms[EQUAL_STEPS if steps[0] == steps[1] else EQUAL_TIME].append(arm)
    if not any(arms.values()):
        return []
    about = [one["comparison"] for found in (ours, *results.values()) for one in found]
    hardware = ", ".join(dict.fromkeys(one["hardware"] for one in about))
    seeds = ", ".join(dict.fromkeys(str(one["seed"]) for one in about))
    trained = f"{about[0]['tier']}: {hardware}; seed {seeds}"
    asked = [score for score in ours[0]["scores"] if score["control"] is None]
    return [_question(score, ours, arms, content, trained) for score in asked]


def _question(
    asked: Result,
    ours: Sequence[Result],
    rivals: Mapping[str, Sequence[str]],
    content: Result,
    trained: str,
) -> Question:
    metric = TASKS[asked["task"]][1][0]
    properties = {
        score["property"] for score in ours[0]["scores"] if _source(score) == _source(asked)
    }
    together = asked["property"] is None or len(properties) == 1
    gains, leads = {}, {}
    for rival, arms in rivals.items():
        gains[rival] = _sorted(
            Interval(gain["gain"], gain["low"], gain["high"])
            for arm in arms
            for gain in content["gains"][arm]
            if _name(gain) == _name(asked) and gain["gain"] is not None
        )
        ahead = [_lead(asked, arm, content["losses"]) for arm in arms if together]
        leads[rival] = _sorted(lead for lead in ahead if lead is not None)
    # None: of all properties together.
    property = asked["property"] or ("all" if asked["task"] == "property_prediction" else None)
    words = TASKS[asked["task"]][0], asked["source"], property
    unit = f", {asked['unit']}" if asked["unit"] else ""
    return Question(
        comparison=ours[0]["comparison"]["name"],
        task=asked["task"],
        title=", ".join(filter(None, words)),
        score=heading(metric) + unit,
        n=asked["n"],
        trained=trained,
        values={
            control: write_value(metric, _mean_score(asked, control, ours, metric))
            for control in (None, *CONTROLS)
        },
        gains=gains,
        leads=leads,
    )


def _sorted(intervals: Iterable[Interval]) -> list[Interval]:
    return sorted(intervals, key=lambda one: one.value)


def _best(found: Mapping[str, Sequence[Interval]]) -> dict[str, Interval]:
    """Over the best of each kind of rival, where there is one."""
    return {rival: intervals[0] for rival, intervals in found.items() if intervals}


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
        gains = [_cell(rival, one.gains[rival], "{:+.1%}") for rival in RIVALS]
        scores.append([link, f"{one.n:,}", one.score, *one.values.values(), *gains, one.trained])
        if any(one.leads.values()):
            leads = [_cell(rival, one.leads[rival], "{:+.4f}") for rival in RIVALS]
            losses.append([link, *leads])
    return "\n\n".join(
        [
            "# Is an adapter for each molecule better than one for all?",
            f"![MoRA's gains and its leads in loss, by question and rival]({PICTURE})",
            "Right of zero MoRA is better. A gain is relative to the rival's score; the paper "
            "has 22% against static adapters on QM9 and 14.1% on products of reactions. The "
            "graph prefix sees the graph too, and takes longer for a step: at equal time it has "
            "fewer steps. Brackets are 95% intervals by paired bootstrap over rows, and know "
            "nothing of other trainings; of losses over several seeds they are the lowest and "
            "the highest. A dash: not run, or not defined; no brackets: too few exact answers "
            "for them. How each was trained, and what the numbers do not say: "
            "[training/comparisons](../../training/comparisons/README.md).",
            "## Scores",
            as_table(scores),
            f"{ONE_LORA} Of the two LoRAs, of MoRA's rank and of its size, one alone was trained.",
            "## Loss of the right answers",
            "In nats a token; it tells methods apart where few answers are exact.",
            as_table(losses),
            "This page is written by `python -m training.overview`.\n",
        ]
    )


def _cell(rival: str, found: Sequence[Interval], form: str) -> str:
    if not found:
        return "–"
    best = found[0]
    ends = "" if best.low is None else f" [{form.format(best.low)}, {form.format(best.high)}]"
    mark = ONE_LORA if rival == LORA and len(found) == 1 else ""
    return form.format(best.value) + ends + mark


if __name__ == "__main__":
    sys.exit(main())
