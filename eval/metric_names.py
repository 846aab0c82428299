# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How scores are called, what values they may have, and how they are written in a table."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One score.

    Attributes:
        title: its column's title.
        higher_is_better: None where neither is, such as a count.
        low: smallest possible value.
        high: largest possible value.
    """

    title: str
    higher_is_better: bool | None = True
    low: float = 0.0
    high: float = 1.0

    @property
    def heading(self) -> str:
        """Title with an arrow that points to the better end."""
        arrow = {True: "↑", False: "↓", None: ""}[self.higher_is_better]
        return self.title + arrow


METRICS = {
    "exact_match": Metric("exact match"),
    "bleu": Metric("BLEU"),
    "levenshtein": Metric("Levenshtein", higher_is_better=False, high=math.inf),
    "rdk": Metric("RDK"),
    "maccs": Metric("MACCS"),
    "morgan": Metric("Morgan"),
    "validity": Metric("validity"),
    "exact_match_no_stereo": Metric("exact match without stereo"),
    "exact_match_inchi": Metric("exact match by InChI"),
    "levenshtein_canonical": Metric(
        "Levenshtein, canonical", higher_is_better=False, high=math.inf
    ),
    "rdk_invalid_zero": Metric("RDK, invalid = 0"),
    "maccs_invalid_zero": Metric("MACCS, invalid = 0"),
    "morgan_invalid_zero": Metric("Morgan, invalid = 0"),
    "bleu2": Metric("BLEU-2"),
    "bleu4": Metric("BLEU-4"),
    "rouge1": Metric("ROUGE-1"),
    "rouge2": Metric("ROUGE-2"),
    "rougeL": Metric("ROUGE-L"),
    "meteor": Metric("METEOR"),
    "mae": Metric("MAE", higher_is_better=False, high=math.inf),
    "rmse": Metric("RMSE", higher_is_better=False, high=math.inf),
    "r2": Metric("R²", low=-math.inf),
    "spearman": Metric("Spearman", low=-1.0),
    "parsed": Metric("parsed"),
    "roc_auc": Metric("ROC-AUC"),
    "n_valid": Metric("valid", higher_is_better=None, high=math.inf),
}

_MOLECULE = ("exact_match", "bleu", "levenshtein", "rdk", "maccs", "morgan", "validity")
_CAPTION = ("bleu2", "bleu4", "rouge1", "rouge2", "rougeL", "meteor")

# Task -> its title and the scores of the first table: those that the field publishes.
TASKS = {
    "forward_reaction_prediction": ("Forward reaction prediction", _MOLECULE),
    "retrosynthesis": ("Retrosynthesis", _MOLECULE),
    "reagent_prediction": ("Reagent prediction", _MOLECULE),
    "property_prediction": ("Property prediction", ("mae", "rmse", "r2", "spearman", "parsed")),
    "property_classification": ("Property classification", ("roc_auc",)),
    "molecule_captioning": ("Molecule captioning", _CAPTION),
    "molecule_qa": ("Questions about molecules", _CAPTION),
}

MOLECULE_TASKS = tuple(task for task, (_, main) in TASKS.items() if main is _MOLECULE)
CAPTION_TASKS = tuple(task for task, (_, main) in TASKS.items() if main is _CAPTION)

# What a score is reported under, beside the model as it is.
CONTROLS = {
    "base_model": "base model, adapter off",
    "no_molecule": "no molecule",
    "shuffled_molecule": "shuffled molecule",
    "no_string": "no string in the question",
    "training_mean": "mean of the training answers",
}


def heading(name: str) -> str:
    """Column title of a score; its own name where it is not one of `METRICS`."""
    return METRICS[name].heading if name in METRICS else name


def main_and_further(task: str, present: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split the scores that are there into the field's and the others, each in a fixed order.

    Args:
        task: key of `TASKS`.
        present: names of scores; `n` is left out, because every table has a column for it.
    """
    present = set(present) - {"n"}
    main = [name for name in TASKS[task][1] if name in present]
    known = [name for name in METRICS if name in present and name not in main]
    return main, known + sorted(present - set(METRICS))


def decimals(name: str, value: float) -> int:
    """Digits behind the point: 3 for shares, 2 for distances, else three significant digits."""
    metric = METRICS.get(name)
    if name == "n_valid":
        return 0
    if metric is not None and metric.high == 1.0:
        return 3
    if name.startswith("levenshtein"):
        return 2
    if value == 0 or not math.isfinite(value):
        return 4
    return min(max(2 - math.floor(math.log10(abs(value))), 0), 6)


def write_value(name: str, value: float | None) -> str:
    """One score as text; an en dash for one that could not be computed."""
    return "–" if value is None else f"{value:.{decimals(name, value)}f}"


def write_published(value: float) -> str:
    """A published score as text: no more digits than were published."""
    return f"{value:g}"


def write_interval(name: str, value: float, low: float, high: float) -> str:
    """An interval as text, with as many digits as its value has."""
    digits = decimals(name, value)
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
