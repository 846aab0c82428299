# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of answered questions: which metrics judge a task, and how rows are put together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from eval.bootstrap import scores_with_intervals
from modeling_mora.tasks_mora import PropertyPrediction, Task

# Files of the computing code by the names in `Task.metrics`.
METRIC_FILES = {
    "molecule_match": "matching",
    "fingerprint_similarity": "similarity",
    "caption_overlap": "overlap",
    "property_regression": "regression",
    "property_roc_auc": "roc_auc",
}
TRAINING_MEAN = "training_mean"


def metric_module(name: str) -> ModuleType:
    """The computing code of a metric, with `score_rows` and `aggregate`.

    Imported when asked for: NLTK, which only captions need, would take a sixth of every start.
    """
    return import_module(f"eval.metrics.{name}.{METRIC_FILES[name]}")


def score_records(
    records: Sequence[Mapping],
    task: Task,
    *,
    policy: str = "strict",
    tokenizer: str = "words",
    seed: int = 0,
) -> dict[str, dict[str, float | int | None]]:
    """All metrics of one task over answered questions.

    Args:
        records: lines of `predictions.jsonl`, of one task; those of several properties only where
            they share a unit.
        task: that task.
        policy: `"strict"` or `"published"`.
        tokenizer: for captions.
        seed: of the bootstrap.

    Returns:
        See `scores_with_intervals`.

    Raises:
        ValueError: a true answer cannot be read.
    """
    scores = {}
    for name in task.metrics:
        metric = metric_module(name)
        rows = metric.score_rows(**metric_arguments(name, records, task, tokenizer), policy=policy)
        scores |= scores_with_intervals(rows, metric.aggregate, seed)
    return scores


def score_all(
    records: Sequence[Mapping],
    training: Iterable[Mapping],
    task_of: Callable[[str], Task],
    **options: Any,
) -> list[dict[str, Any]]:
    """The entries of `scores` in `results.json`.

    Each property is scored on its own; several of one source also together, as `property` None,
    where that means something: numbers of one unit, and the mean over labels.

    Args:
        records: lines of `predictions.jsonl`, of all controls.
        training: rows of the training split, for predicting its mean.
        task_of: from a task's name to the task with the settings of the data.
        options: other arguments of `score_records`.
    """
    records = [*records, *predict_mean(records, training)]
    entries = []
    for (name, source), of_source in group_by(records, "task", "source").items():
        task = task_of(name)
        by_property = group_by(of_source, "property")
        together = {(None,): of_source} if _are_alike(task, by_property) else {}
        for (asked,), of_property in (by_property | together).items():
            for (control,), answered in group_by(of_property, "control").items():
                entries.append(
                    {
                        "task": name,
                        "source": source,
                        "property": asked,
                        "notation": task.notation,
                        "unit": unit_of(task, answered[0]["property"]),
                        "control": control,
                        "n": len(answered),
                        "tokenizer": options["tokenizer"] if _is_text(task) else None,
                        "meteor_wordnet": _has_wordnet() if _is_text(task) else None,
                        "metrics": score_records(answered, task, **options),
                    }
                )
    return entries


def predict_mean(records: Sequence[Mapping], training: Iterable[Mapping]) -> list[dict]:
    """Answers that predict, for every number that was asked, the mean of the training answers.

    The mean is the training split's, never the test split's: it may know only what the model could
    have learned.
    """
    key = ("task", "source", "property")
    numbers = (row for row in training if row["task"] == "property_prediction")
    means = {
        kind: np.mean([float(row["answer"]) for row in rows])
        for kind, rows in group_by(numbers, *key).items()
    }
    return [
        {**record, "control": TRAINING_MEAN, "text": str(means[kind]), "finished": True}
        for record in records
        if record["control"] is None and (kind := tuple(record[name] for name in key)) in means
    ]


def metric_arguments(
    metric: str, records: Sequence[Mapping], task: Task, tokenizer: str
) -> dict[str, Any]:
    """The arguments of a metric's `score_rows`, but the policy."""
    references = [record["reference"] for record in records]
    texts = [record["text"] for record in records]
    if metric == "property_regression":
        # A text that was cut off may end in half a number.
        texts = [record["text"] if record["finished"] else None for record in records]
        unit = unit_of(task, records[0]["property"])
        return {"predictions": texts, "references": [*map(float, references)], "unit": unit}
    if metric == "property_roc_auc":
        return {
            "predictions": [record["p_yes"] for record in records],
            "references": [int(task.parse(reference)) for reference in references],
            "labels": [record["property"] for record in records],
        }
    if metric == "caption_overlap":
        return {"predictions": texts, "references": references, "tokenizer": tokenizer}
    return {"predictions": texts, "references": references, "notation": task.notation}


def group_by(records: Iterable[Mapping], *keys: str) -> dict[tuple, list[Mapping]]:
    """Records by the values of these keys, in the order in which they come."""
    groups: dict[tuple, list[Mapping]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


def unit_of(task: Task, asked: str | None) -> str | None:
    """Unit of a property; None for a task without one."""
    return task.properties[asked].unit if isinstance(task, PropertyPrediction) else None


def print_scores(entries: Sequence[Mapping], policy: str, console: Console) -> None:
    """Print a table for each task, source and property: a row a metric, a column a control.

    Args:
        entries: from `score_all`.
        policy: that of the scores.
        console: where to print.
    """
    for (_, source, asked), alike in group_by(entries, "task", "source", "property").items():
        ours = alike[0]
        title = f"{source} {asked or ours['task']}, policy: {policy}, n = {ours['n']}"
        # With lines between them, the columns of all controls are too wide for 80 characters.
        table = Table(
            title=title + (f", in {ours['unit']}" if ours["unit"] else ""),
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for heading in ("", "model", "95% interval"):
            table.add_column(heading)
        for other in alike[1:]:
            table.add_column(other["control"].replace("_", " "))
        for metric, score in ours["metrics"].items():
            values = [show_value(other["metrics"][metric]["value"]) for other in alike]
            table.add_row(metric, values[0], show_interval(score), *values[1:])
        console.print(table)


def show_value(value: float | int | None) -> str:
    """A score with three digits; a dash where there is none."""
    if value is None or isinstance(value, int):
        return "–" if value is None else str(value)
    return f"{value:.3g}"


def show_interval(score: Mapping[str, float | int | None]) -> str:
    """Such as `0.0163 to 0.0207`; nothing where there is none."""
    if score.get("low") is None:
        return ""
    return f"{show_value(score['low'])} to {show_value(score['high'])}"


def _are_alike(task: Task, by_property: Mapping[tuple, Any]) -> bool:
    """Whether a score over several properties means something."""
    return len(by_property) > 1 and len({unit_of(task, asked) for (asked,) in by_property}) == 1


def _has_wordnet() -> bool:
    return metric_module("caption_overlap").wordnet_available()


def _is_text(task: Task) -> bool:
    return "caption_overlap" in task.metrics
