# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a comparison: how each arm was trained, what it scored, who is better by how much."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

PAGE = "README.md"
NOTES = (
    "Brackets are 95% intervals by bootstrap over rows, paired for gains; they know nothing of "
    "other trainings. Where there are several seeds, a score is their mean and the brackets are "
    "the lowest and the highest."
)


def write_page(
    name: str,
    arms: Mapping[str, Sequence[Mapping[str, Any]]],
    gains: Mapping[str, Sequence[Mapping[str, Any]]],
    folder: Path,
) -> Path:
    """Write the page, with the pictures and tables in `report` beside it.

    Args:
        name: of the comparison.
        arms: by arm, the results of each seed: what eval.benchmark wrote, with what
            training.compare adds as `comparison`.
        gains: by arm, the gains of the first arm over it, as eval.relative_gain wrote them.
        folder: gets the page.
    """
    about = [result["comparison"] for results in arms.values() for result in results]
    tiers, hardware, seeds = (
        ", ".join(dict.fromkeys(str(one[key]) for one in about))
        for key in ("tier", "hardware", "seed")
    )
    first = next(iter(arms))
    parts = [
        f"# {name}",
        f"Tier {tiers}; {hardware}; seeds {seeds}. An arm is trained with each value that is "
        "searched and scored with the one of the lowest loss on the validation rows.",
        _training_table(arms),
        "![Training loss](report/loss.png)",
        "![Validation loss](report/eval_loss.png)",
        "All scores, answers and plots: [report/report.md](report/report.md).",
    ]
    for number, gain in enumerate(next(iter(gains.values()), [])):
        others = {arm: found[number] for arm, found in gains.items()}
        parts += [f"## {_heading(gain)}", _score_table(arms, others, first)]
    if gains:
        parts.append(f"A positive gain: {first} is better. {NOTES}")
    path = folder / PAGE
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _training_table(arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows = [("arm", "validation loss of what was tried", "steps", "minutes a training")]
    for arm, results in arms.items():
        runs = [result["comparison"] for result in results]
        minutes = mean(run["train_runtime_s"] for run in runs) / 60
        losses = runs[0]["search"]
        best = min(losses.values())
        tried = "<br>".join(
            ("**{}: {:.4f}**" if loss == best else "{}: {:.4f}").format(
                variant.removeprefix(arm).lstrip("@").replace("@", ", ") or "as it is", loss
            )
            for variant, loss in losses.items()
        )
        rows.append((f"`{arm}`", tried, str(runs[0]["steps"]), f"{minutes:.1f}"))
    return _table(rows)


def _score_table(
    arms: Mapping[str, Sequence[Mapping[str, Any]]],
    gains: Mapping[str, Mapping[str, Any]],
    first: str,
) -> str:
    """One row for each arm and each of its controls, in the score of these gains."""
    gain = next(iter(gains.values()))
    keys = ("task", "source", "property")
    rows = [("", gain["metric"], f"gain of {first}")]
    for arm, results in arms.items():
        found: dict[str | None, list[Mapping[str, Any]]] = {}
        for result in results:
            for score in result["scores"]:
                if all(score[key] == gain[key] for key in keys):
                    metric = score["metrics"].get(gain["metric"]) or {}
                    found.setdefault(score["control"], []).append(metric)
        for control, scores in found.items():
            title = f"↳ {control.replace('_', ' ')}" if control else f"`{arm}`"
            won = _gain(gains[arm]) if control is None and arm in gains else ""
            rows.append((title, _score(scores), won))
    return _table(rows)


def _heading(gain: Mapping[str, Any]) -> str:
    what = [gain["task"].replace("_", " "), gain["source"], gain["property"]]
    unit = f", {gain['unit']}" if gain["unit"] else ""
    return f"{', '.join(filter(None, what))}: {gain['metric']}{unit}, {gain['n']:,} rows"


def _score(scores: Sequence[Mapping[str, Any]]) -> str:
    values = [score.get("value") for score in scores]
    if None in values:
        return "–"
    ends = min(values), max(values)
    if len(scores) == 1:
        ends = scores[0].get("low"), scores[0].get("high")
    return f"{mean(values):.3g}" + ("" if None in ends else f" [{ends[0]:.3g}, {ends[1]:.3g}]")


def _gain(gain: Mapping[str, Any]) -> str:
    if gain["gain"] is None:
        return "–"
    ends = "" if gain["low"] is None else f" [{gain['low']:+.1%}, {gain['high']:+.1%}]"
    return f"{gain['gain']:+.1%}{ends}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])
