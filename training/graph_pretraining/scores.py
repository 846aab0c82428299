# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""How well held-out molecules are predicted, beside a prediction that is the same for all."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rich.table import Table
from transformers import EvalPrediction

from training.graph_pretraining.collator import IGNORE_INDEX
from training.graph_pretraining.model import RAREST, GraphPretrainingConfig, standardise
from training.graph_pretraining.targets import Statistics

# The batch's tensors that the Trainer hands on as labels, in this order.
LABELS = ["descriptors", "morgan_bits", "atom_types", "bond_types"]
# By task: the key of its score, and what the score is called.
SCORES = {
    "descriptors": ("descriptors_r2", "R², median over descriptors"),
    "morgan": ("morgan_average_precision", "average precision over all bits"),
    "atoms": ("atoms_accuracy", "accuracy"),
    "bonds": ("bonds_accuracy", "accuracy"),
}


def make_scorer(
    config: GraphPretrainingConfig,
) -> Callable[[EvalPrediction], dict[str, float]]:
    """The Trainer's `compute_metrics`: for each task `TASK_loss` and its score, see `SCORES`."""

    def score(prediction: EvalPrediction) -> dict[str, float]:
        predicted, morgan_logits, hidden = prediction.predictions
        descriptors, bits, _, _ = prediction.label_ids
        target = standardise(torch.from_numpy(descriptors), config).numpy()
        found = {
            "descriptors_loss": _mean((predicted - target) ** 2),
            "descriptors_r2": median_r2(predicted, target),
            "morgan_loss": _bit_loss(torch.from_numpy(morgan_logits).sigmoid().numpy(), bits),
            "morgan_average_precision": average_precision(morgan_logits, bits),
        }
        for task, scores in zip(("atoms", "bonds"), hidden.swapaxes(0, 1), strict=True):
            loss, right, count = scores.sum(axis=0, dtype=np.float64)
            found[f"{task}_loss"] = float(loss / count) if count else math.nan
            found[f"{task}_accuracy"] = float(right / count) if count else math.nan
        return found

    return score


def constant_scores(
    labels: Sequence[np.ndarray], config: GraphPretrainingConfig, statistics: Statistics
) -> dict[str, float]:
    """The same for a prediction that is the same for all molecules.

    Every descriptor's mean, every bit's share and the most frequent type (for the loss: every
    type's share) of the training molecules.

    Args:
        labels: of the held-out molecules, in the order of `LABELS`.
        config: of the model.
        statistics: of the training molecules.
    """
    descriptors, bits, atom_types, bond_types = labels
    target = standardise(torch.from_numpy(descriptors), config).numpy()
    shares = np.broadcast_to(statistics.morgan_frequency, bits.shape)
    found = {
        "descriptors_loss": _mean(target**2),
        "descriptors_r2": median_r2(np.zeros_like(target), target),
        "morgan_loss": _bit_loss(shares, bits),
        "morgan_average_precision": average_precision(shares, bits),
    }
    for task, types, frequency in (
        ("atoms", atom_types, statistics.atom_frequency),
        ("bonds", bond_types, statistics.bond_frequency),
    ):
        types = types[types != IGNORE_INDEX]
        found[f"{task}_loss"] = _mean(-np.log(np.maximum(frequency[types], RAREST)))
        found[f"{task}_accuracy"] = _mean((types == frequency.argmax()).astype(float))
    return found


def median_r2(predicted: np.ndarray, target: np.ndarray) -> float:
    """Median over columns of the coefficient of determination R².

    Not the mean: a descriptor that is huge for a few molecules hardly varies among the others, by
    the standard deviation of all, and its R² may be -100.

    Args:
        predicted: [M, D].
        target: [M, D]; NaN is left out, and so is a column that is the same in all rows.
    """
    known = np.isfinite(target)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, target, 0).sum(axis=0) / count
    variation = np.where(known, target - mean, 0) ** 2
    error = np.where(known, predicted - target, 0) ** 2
    total = variation.sum(axis=0, dtype=np.float64)
    varies = total > 1e-6 * count
    scores = 1 - error.sum(axis=0, dtype=np.float64)[varies] / total[varies]
    return float(np.median(scores)) if scores.size else math.nan


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision of all entries in one ranking: sum of precision times gain in recall.

    Args:
        scores: any shape; equal ones have one rank.
        labels: the same shape, 1 for what should rank first, otherwise 0.
    """
    scores, labels = scores.ravel(), labels.ravel()
    positives = labels.sum()
    if not positives:
        return math.nan
    order = np.argsort(-scores)
    last_of_rank = np.append(np.diff(scores[order]).nonzero()[0], len(scores) - 1)
    found = labels[order].cumsum(dtype=np.float64)[last_of_rank]
    precision = found / (last_of_rank + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / positives)


def score_table(scores: dict[str, float], constant: dict[str, float], molecules: int) -> Table:
    """Losses and scores by task, beside those of the constant prediction, for the screen."""
    table = Table(title=f"{molecules:,} held-out molecules", title_justify="left")
    table.add_column("task")
    for column in ("loss", "constant\nprediction"):
        table.add_column(column, justify="right")
    table.add_column("score", overflow="fold")
    for column in ("", "constant\nprediction"):
        table.add_column(column, justify="right")
    for task, (key, name) in SCORES.items():
        losses = [f"{one[f'{task}_loss']:.4f}" for one in (scores, constant)]
        table.add_row(task, *losses, name, *(f"{one[key]:.3f}" for one in (scores, constant)))
    return table


def _mean(values: np.ndarray) -> float:
    """Mean of the finite values; `nan` if there are none."""
    values = values[np.isfinite(values)]
    return float(values.mean(dtype=np.float64)) if values.size else math.nan


def _bit_loss(share: np.ndarray, bits: np.ndarray) -> float:
    share = np.clip(share, RAREST, 1 - RAREST)
    return _mean(-np.log(np.where(bits > 0, share, 1 - share)))
