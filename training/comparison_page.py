# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""The page of a comparison: how each arm was trained, what it scored, who is better by how much."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

PAGE = "README.md"
Result = Mapping[str, Any]
# What tells questions apart, in scores as in gains.
QUESTION = ("task", "source", "property")


def write_page(
    name: str,
    arms: Mapping[str, Sequence[Result]],
    gains: Mapping[str, Sequence[Result]],
    losses: Sequence[Sequence[Result]],
    folder: Path,
    failed: Sequence[str] = (),
) -> Path:
    """Write the page, with the pictures and tables in `report` beside it.

    Args:
        name: of the comparison.
        arms: by arm, the results of each seed: what eval.benchmark wrote, with what
            training.compare adds as `comparison`.
        gains: by arm, the gains of the first arm over it, as eval.relative_gain wrote them.
        losses: by seed of the first arm, the losses of the right answers as eval.answer_loss wrote
            them, with `than` another arm.
        folder: gets the page.
        failed: names of runs that are missing.
    """
    about = [result["comparison"] for results in arms.values() for result in results]
    tiers, hardware = (
        ", ".join(dict.fromkeys(str(one[key]) for one in about)) for key in ("tier", "hardware")
    )
    first = next(iter(arms))
    parts = [f"# {name}", f"Tier {tiers}; {hardware}."]
    if failed:
        parts.append(f"**Failed, and missing here**: {', '.join(failed)}.")
    parts += [
        _training_table(arms),
        "Where several values were tried, the one of the lowest loss on the validation rows is "
        "scored. An arm that is named with its values was trained with these alone.",
        "![Training loss](report/loss.png)",
        "![Validation loss](report/eval_loss.png)",
        "All scores, answers and plots: [report/report.md](report/report.md).",
    ]
    for score in arms[first][0]["scores"]:
        if score["control"] is None:
            parts.append(_score_section(score, arms, gains))
    read = arms[first][0]["answer_loss"]
    for task, source in dict.fromkeys((one["task"], one["source"]) for one in read):
        parts.append(_loss_section(task, source, arms, losses))
    gain = f"A positive gain: {first} is better. " if gains else ""
    parts.append(
        f"{gain}Brackets are 95% intervals by bootstrap over rows, paired for gains; they know "
        "nothing of other trainings. Where an arm has several seeds, a score is their mean and the "
        "brackets are the lowest and the highest."
    )
    path = folder / PAGE
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _training_table(arms: Mapping[str, Sequence[Result]]) -> str:
    rows = [("arm", "tried: validation loss", "seeds", "steps", "minutes a training")]
    for arm, results in arms.items():
        runs = [result["comparison"] for result in results]
        losses = runs[0]["search"]
        best = min(losses.values(), default=None)
        tried = [
            ("**{}: {:.4f}**" if loss == best else "{}: {:.4f}").format(
                variant.removeprefix(arm).lstrip("@").replace("@", ", ") or "as it is", loss
            )
            for variant, loss in losses.items()
        ]
        seconds = [run["train_runtime_s"] for run in runs]
        minutes = "–" if None in seconds else f"{mean(seconds) / 60:.1f}"
        seeds = ", ".join(str(run["seed"]) for run in runs)
        rows.append((f"`{arm}`", "<br>".join(tried) or "–", seeds, str(runs[0]["steps"]), minutes))
    return as_table(rows)


def _score_section(
    question: Result,
    arms: Mapping[str, Sequence[Result]],
    gains: Mapping[str, Sequence[Result]],
) -> str:
    """Heading and table of one question: a row for each arm and each of its controls."""
    won = {arm: gain for arm, found in gains.items() for gain in found if _same(gain, question)}
    # The first score is that of the task's table, as in gains.
    metric = next((gain["metric"] for gain in won.values()), next(iter(question["metrics"])))
    title = [question["task"].replace("_", " "), question["source"], question["property"]]
    unit = f", {question['unit']}" if question["unit"] else ""
    rows = [("", metric, *([f"gain of {next(iter(arms))}"] if won else []))]
    for arm, results in arms.items():
        found: dict[str | None, list[Result]] = {}
        for score in (score for result in results for score in result["scores"]):
            if _same(score, question):
                found.setdefault(score["control"], []).append(score["metrics"].get(metric) or {})
        if arm != next(iter(arms)):
            found.pop("training_mean", None)  # the same for all
        for control, values in found.items():
            name = f"↳ {control.replace('_', ' ')}" if control else f"`{arm}`"
            gain = _gain(won[arm]) if control is None and arm in won else ""
            rows.append((name, _score(values), *([gain] if won else [])))
    heading = f"## {', '.join(filter(None, title))}: {metric}{unit}, {question['n']:,} rows"
    return f"{heading}\n\n{as_table(rows)}"


def _loss_section(
    task: str,
    source: str,
    arms: Mapping[str, Sequence[Result]],
    losses: Sequence[Sequence[Result]],
) -> str:
    """How likely the right answers are: a row for each arm and each of its controls."""
    ours = next(iter(arms))
    rows = [("", "loss", f"more than {ours}'s")]
    for arm, results in arms.items():
        found: dict[str | None, list[Result]] = {}
        for one in (one for result in results for one in result["answer_loss"]):
            if (one["task"], one["source"]) == (task, source):
                found.setdefault(one["control"], []).append(one)
        for control, values in found.items():
            asked = (task, source, control, None if arm == ours else arm)
            keys = ("task", "source", "control", "than")
            more = [
                one["difference"]
                for of_seed in losses
                for one in of_seed
                if tuple(one[key] for key in keys) == asked and one["difference"]
            ]
            name = f"↳ {control.replace('_', ' ')}" if control else f"`{arm}`"
            loss = _score([one["loss"] for one in values], "{:.4f}")
            rows.append((name, loss, _score(more, "{:+.4f}") if more else ""))
    title = f"## {task.replace('_', ' ')}, {source}: loss of the right answers, nats a token"
    return f"{title}\n\n{as_table(rows)}"


def _same(one: Result, other: Result) -> bool:
    return all(one[key] == other[key] for key in QUESTION)


def _score(scores: Sequence[Result], form: str = "{:.3g}") -> str:
    values = [score.get("value") for score in scores]
    if None in values:
        return "–"
    ends = min(values), max(values)
    if len(scores) == 1:
        ends = scores[0].get("low"), scores[0].get("high")
    brackets = "" if None in ends else f" [{form.format(ends[0])}, {form.format(ends[1])}]"
    return form.format(mean(values)) + brackets


def _gain(gain: Result) -> str:
    if gain["gain"] is None:
        return "–"
    ends = "" if gain["low"] is None else f" [{gain['low']:+.1%}, {gain['high']:+.1%}]"
    return f"{gain['gain']:+.1%}{ends}"


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, whose first row is the head."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body])
